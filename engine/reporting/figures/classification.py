"""Draws charts per class: number of examples and scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from engine.reporting.figures.style import (
    BLUE,
    GREEN,
    LOOKS,
    MOST_NAMES,
    OTHER,
    VERMILION,
    renders_png,
    set_class_ticks,
)


@renders_png
def class_balance(counts: Mapping[str, np.ndarray], names: list[str]) -> Figure:
    """Draws the number of examples of each class, with a bar for each split.

    Args:
      counts: number of examples per class, int [classes], by split name; 1 to 3 splits.
      names: class names.
    """
    classes = len(names)
    figure = Figure(figsize=(_length(classes, 2, 0.55, 6, 14), 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=False, axis="x")
    width = 0.84 / len(counts)
    for at, (split, of_class) in enumerate(counts.items()):
        look = LOOKS.get(split, OTHER)
        axes.bar(
            np.arange(classes) - 0.42 + width * (at + 0.5),
            of_class,
            width,
            color=look.colour,
            edgecolor="white",
            hatch=look.hatch,
            linewidth=0,
            label=f"{split}: {int(of_class.sum()):,}",
        )
    set_class_ticks(axes, "x", names, upright=True)
    axes.set_xlabel("class")
    axes.set_ylabel("examples")
    axes.set_title("Examples of each class")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@renders_png
def class_scores(
    precision: np.ndarray, recall: np.ndarray, f1: np.ndarray, names: list[str], *, title: str
) -> Figure:
    """Draws precision, recall and F1 of each class, as markers on a line.

    Args:
      precision: float [classes]; nan where the class is never predicted.
      recall: float [classes]; nan where the class has no examples.
      f1: float [classes]; nan where the class has no examples and is never predicted.
      names: class names.
      title: title of the figure.
    """
    classes = len(names)
    figure = Figure(figsize=(6.2, _length(classes, 1.6, 0.26, 3, 16)), layout="constrained")
    axes = figure.add_subplot()
    at = np.arange(classes)
    known = np.nan_to_num(np.stack([precision, recall, f1]), nan=1.0)
    axes.hlines(at, 100 * known.min(0), 100 * known.max(0), color="#bbbbbb", linewidth=1)
    marks = (
        ("precision", precision, ">", BLUE),
        ("recall", recall, "<", VERMILION),
        ("F1", f1, "|", GREEN),
    )
    for name, values, marker, colour in marks:
        axes.plot(100 * values, at, marker, color=colour, markersize=7, label=name)
    set_class_ticks(axes, "y", names)
    axes.set_ylim(classes - 0.5, -0.5)
    axes.set_xlabel("%")
    axes.set_ylabel("class")
    axes.set_title(title)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _length(classes: int, margin: float, each: float, least: float, maximum: float) -> float:
    """Returns a side length in inches; more than `maximum` if the class names need it."""
    needed = margin + 0.14 * min(classes, MOST_NAMES)
    return float(np.clip(margin + each * classes, least, max(maximum, needed)))
