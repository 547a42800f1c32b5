"""Draws the confusion matrix as a heat map."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from engine.reporting.figures.style import MOST_NAMES, renders_png, set_class_ticks

_MOST_NUMBERS = 25  # maximum number of classes of a matrix with numbers in its cells


@renders_png
def confusion_matrix(counts: np.ndarray, names: list[str], *, by_row: bool, title: str) -> Figure:
    """Draws a confusion matrix: labels in rows, predicted classes in columns.

    The shade of a cell is proportional to the square root of its fraction of the row, so that rare
    mistakes are visible. If cells are too small to hold counts, and `by_row` is false, it is
    proportional to the square root of the count.

    Args:
      counts: confusion matrix, int [classes (label), classes (predicted)].
      names: class names.
      by_row: whether cells show percentages of their row instead of counts.
      title: title of the figure.
    """
    classes = len(names)
    rows = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(rows, 1)
    written = classes <= _MOST_NUMBERS
    side = float(np.clip(2.2 + 0.42 * classes, 4.2, max(11, 2.5 + 0.12 * min(classes, MOST_NAMES))))
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=False)
    of_row = by_row or written
    values, maximum = (shares, 1) if of_row else (counts, max(int(counts.max()), 1))
    norm = PowerNorm(0.5, 0, maximum)
    shown = axes.imshow(values, cmap="Blues", norm=norm, interpolation="nearest")
    set_class_ticks(axes, "x", names, upright=True)
    set_class_ticks(axes, "y", names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_title(title)
    label = "share of the row, %" if of_row else "examples"
    bar = figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02, label=label)
    if of_row:
        bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "1", "10", "25", "50", "100"])
    if written:
        size = 8.5 if classes <= 12 else 5.5
        for row, column in np.ndindex(counts.shape):
            count, share = int(counts[row, column]), float(shares[row, column])
            text = _percent(share) if by_row else f"{count:,}"
            axes.text(
                column,
                row,
                text if count else "\u00b7",
                ha="center",
                va="center",
                fontsize=size,
                color="white" if share > 0.35 else "black",
            )
    return figure


def _percent(share: float) -> str:
    """Formats a positive fraction as a percentage: `98.9`, or `<0.1` if it would round to 0.0."""
    return "<0.1" if share < 0.0005 else f"{100 * share:.1f}"
