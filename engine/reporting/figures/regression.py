"""Draws scatter plots of predicted numbers over their targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from engine.reporting.figures.style import BLUE, renders_png, truncate

_MARGIN = 0.04  # of the axes' range, on both sides


class Scatter(NamedTuple):
    """Targets and predictions of one number; a pair is drawn only if both values are finite."""

    name: str
    targets: np.ndarray  # float [n]
    predictions: np.ndarray  # float [n]


@renders_png
def predictions_over_targets(panels: Sequence[Scatter], *, title: str) -> Figure:
    """Draws 1 or more scatter plots of predictions over targets, in rows of two.

    Both axes of a plot have the same range; on the dashed diagonal, the prediction is the target.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.9 * rows + 0.3), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for number, panel in enumerate(panels, 1):
        _draw(figure.add_subplot(rows, columns, number), panel)
    return figure


def _draw(axes: Axes, panel: Scatter) -> None:
    finite = np.isfinite(panel.targets) & np.isfinite(panel.predictions)
    x, y = (each[finite].astype(np.float64) for each in (panel.targets, panel.predictions))
    low, high = (min(x.min(), y.min()), max(x.max(), y.max())) if len(x) else (0.0, 1.0)
    margin = _MARGIN * (high - low) or 0.5
    limits = low - margin, high + margin
    axes.plot(limits, limits, "--", color="#222222", linewidth=1, zorder=3)
    opacity = float(np.clip(300 / max(len(x), 1), 0.15, 0.8))
    axes.plot(x, y, "o", color=BLUE, alpha=opacity, markeredgewidth=0, markersize=4)
    if not len(x):
        axes.text(0.5, 0.85, "no finite values", ha="center", transform=axes.transAxes)
    axes.set(
        xlim=limits,
        ylim=limits,
        xlabel="target",
        ylabel="prediction",
        title=truncate(panel.name, 40),
        aspect="equal",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6))
    axes.ticklabel_format(scilimits=(-3, 5))
