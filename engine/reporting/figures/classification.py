"""Draws charts of examples and scores per class, of confusion matrices and of calibration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from engine.reporting.figures.style import (
    BLUE,
    GREEN,
    MAX_NAMES,
    VERMILION,
    renders_png,
    set_class_ticks,
    split_styles,
)

_MAX_NUMBERS = 25  # maximum number of classes of a confusion matrix with numbers in its cells


@renders_png
def class_balance(counts: Mapping[str, np.ndarray], names: list[str]) -> Figure:
    """Draws a bar chart of the number of examples of each class, with a series for each split.

    `counts` is {split: int [classes]}, with 1 or more splits.
    """
    classes = len(names)
    figure, axes = _one_chart(_length(classes, 2, 0.55, 6, 14), 3.4)
    axes.grid(visible=False, axis="x")
    width, styles = 0.84 / len(counts), split_styles(counts)
    for index, (split, of_class) in enumerate(counts.items()):
        style = styles[split]
        axes.bar(
            np.arange(classes) - 0.42 + width * (index + 0.5),
            of_class,
            width,
            color=style.colour,
            edgecolor="white",
            hatch=style.hatch,
            linewidth=0,
            label=f"{split}: {int(of_class.sum()):,}",
        )
    set_class_ticks(axes, "x", names, upright=True)
    axes.set(xlabel="class", ylabel="examples", title="Examples of each class")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@renders_png
def class_scores(
    precision: np.ndarray,
    recall: np.ndarray,
    f1: np.ndarray,
    names: list[str],
    *,
    title: str,
    axis: str = "class",
) -> Figure:
    """Draws precision, recall and F1 of each class in percent, as markers on one line per class.

    The scores are float [classes], from 0 to 1; an undefined score is nan and is not drawn. `axis`
    is the label of the axis of the classes.
    """
    classes = len(names)
    figure, axes = _one_chart(6.2, _length(classes, 1.6, 0.26, 3, 16))
    positions = np.arange(classes)
    scores = 100 * np.stack([precision, recall, f1])
    # `fmin` and `fmax` leave out what is nan.
    ends = np.fmin.reduce(scores), np.fmax.reduce(scores)
    axes.hlines(positions, *ends, color="#bbbbbb", linewidth=1)
    for name, values, marker, colour in (
        ("precision", precision, ">", BLUE),
        ("recall", recall, "<", VERMILION),
        ("F1", f1, "|", GREEN),
    ):
        axes.plot(100 * values, positions, marker, color=colour, markersize=7, label=name)
    set_class_ticks(axes, "y", names)
    axes.set(ylim=(classes - 0.5, -0.5), xlabel="%", ylabel=axis, title=title)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@renders_png
def confusion_matrix(counts: np.ndarray, names: list[str], *, by_row: bool, title: str) -> Figure:
    """Draws a confusion matrix, int [classes (label), classes (predicted)], as a heat map.

    With at most `_MAX_NUMBERS` classes, each cell shows a percentage of the row if `by_row`, else
    the count; a cell of count 0 shows a dot. The shade of a cell is proportional to the square root
    of a number, so that rare mistakes are visible: of the count if there are more classes and not
    `by_row`, else of the fraction of the row.
    """
    classes = len(names)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with_numbers = classes <= _MAX_NUMBERS
    side = float(np.clip(2.2 + 0.42 * classes, 4.2, max(11, 2.5 + 0.12 * min(classes, MAX_NAMES))))
    figure, axes = _one_chart(side + 1.2, side)
    axes.grid(visible=False)
    of_row = by_row or with_numbers
    values, maximum = (fractions, 1) if of_row else (counts, max(int(counts.max()), 1))
    norm = PowerNorm(0.5, 0, maximum)
    image = axes.imshow(values, cmap="Blues", norm=norm, interpolation="nearest")
    set_class_ticks(axes, "x", names, upright=True)
    set_class_ticks(axes, "y", names)
    axes.set(xlabel="predicted", ylabel="label", title=title)
    label = "percentage of the row" if of_row else "examples"
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label=label)
    if of_row:
        bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "1", "10", "25", "50", "100"])
    if with_numbers:
        size = 8.5 if classes <= 12 else 5.5
        for (row, column), fraction in np.ndenumerate(fractions):
            count = counts[row, column]
            text = _percent(fraction) if by_row else f"{count:,}"
            text = text if count else "\u00b7"
            colour = "white" if fraction > 0.35 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    return figure


@renders_png
def reliability(
    edges: np.ndarray,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    counts: np.ndarray,
    *,
    error: float,
    title: str,
) -> Figure:
    """Draws a reliability diagram, and below it the number of predictions in each confidence bin.

    Reference: Guo et al., 2017, "On Calibration of Modern Neural Networks".

    Args:
      edges: edges of the bins, from 0 to 1, float [bins + 1].
      confidence: mean confidence of each bin, from 0 to 1, float [bins]; nan for an empty bin.
      accuracy: accuracy in each bin, from 0 to 1, float [bins]; nan for an empty bin.
      counts: number of predictions in each bin, int [bins].
      error: expected calibration error, from 0 to 1, which is added to the title.
      title: title of the figure.
    """
    figure = Figure(figsize=(4.8, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 100], [0, 100], "--", color="#888888", linewidth=1)
    full = counts > 0
    upper.plot(100 * confidence[full], 100 * accuracy[full], "-o", color=BLUE)
    title = f"{title}: expected error {100 * error:.2f}%"
    upper.set(ylabel="accuracy, %", ylim=(0, 102), title=title)
    widths = 100 * np.diff(edges)
    lower.bar(100 * edges[:-1], counts, widths, align="edge", color=BLUE, edgecolor="white")
    lower.set_yscale("symlog", linthresh=1)
    lower.yaxis.set_major_formatter("{x:,.0f}")
    lower.set_ylim(bottom=0)
    lower.set(ylabel="predictions", xlabel="confidence, %", xlim=(0, 100))
    return figure


def _one_chart(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _length(classes: int, margin: float, each: float, minimum: float, maximum: float) -> float:
    """Returns the length of a figure along the class axis: `margin` plus `each` per class, inches.

    The length is at least `minimum`, and at most the larger of `maximum` and what names need.
    """
    needed = margin + 0.14 * min(classes, MAX_NAMES)
    return float(np.clip(margin + each * classes, minimum, max(maximum, needed)))


def _percent(fraction: float) -> str:
    """Formats a positive fraction as a percentage: `98.9`, or `<0.1` if it would round to 0.0."""
    return "<0.1" if fraction < 0.0005 else f"{100 * fraction:.1f}"
