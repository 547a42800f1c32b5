"""Draws line charts of the metrics of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from engine.reporting.figures.style import LOOKS, OTHER, renders_png

_FEW = 30  # maximum number of points of a curve that is not smoothed
_MANY = 4000  # maximum number of points of a curve that is not binned
_BINS = 1000  # number of bins


class Line(NamedTuple):
    """A curve; points whose y is not finite are not drawn.

    Attributes:
      x: positions of the points, float [n].
      y: values of the points, float [n].
    """

    x: np.ndarray
    y: np.ndarray


class Chart(NamedTuple):
    """A chart of one or more curves.

    Attributes:
      title: title of the chart.
      unit: label of the y axis.
      lines: curves by name; a split has the same style in every figure.
      best: position of the best step on the x axis, which is marked; None: no mark.
      logarithmic: whether the y axis is logarithmic, and only positive values are drawn.
    """

    title: str
    unit: str
    lines: Mapping[str, Line]
    best: float | None = None
    logarithmic: bool = False


@renders_png
def charts(panels: Sequence[Chart], *, x: str, columns: int = 2) -> Figure:
    """Draws charts side by side, with the same quantity on the x axis.

    A curve of more than `_FEW` points is drawn smoothed, over the raw curve in a lighter shade. If
    it has more than `_MANY` points, the raw curve shows the minimum and maximum of bins of points.

    Args:
      panels: charts, 1 or more.
      x: label of the x axis.
      columns: maximum number of charts side by side.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.1 * rows), layout="constrained")
    for at, panel in enumerate(panels):
        _draw(figure.add_subplot(rows, columns, at + 1), panel, x)
    return figure


def downsample(line: Line) -> tuple[Line, Line]:
    """Reduces a curve of `_BINS` or more points to `_BINS` bins; their sizes differ by 1 at most.

    Returns:
      A curve of the minimum and the maximum of each bin in turn, which keeps every peak, and a
      curve of the mean of each bin.
    """
    edges = np.linspace(0, len(line.x), _BINS + 1).astype(int)
    first, sizes = edges[:-1], np.diff(edges)
    ends = np.stack([np.minimum.reduceat(line.y, first), np.maximum.reduceat(line.y, first)])
    x = np.add.reduceat(line.x, first) / sizes
    return Line(np.repeat(x, 2), ends.T.ravel()), Line(x, np.add.reduceat(line.y, first) / sizes)


def exponential_moving_average(y: np.ndarray, points: int) -> np.ndarray:
    """Returns the bias-corrected EMA of `y` over about `points` points, float64 [n].

    The decay is 1 - 1 / points. The bias correction divides the EMA by the sum of its weights
    (Kingma and Ba, 2015), so that it starts at y[0].
    """
    decay = 1 - 1 / points
    total, weight, out = 0.0, 0.0, np.empty(len(y))
    for at, value in enumerate(y.tolist()):
        total, weight = decay * total + (1 - decay) * value, decay * weight + 1 - decay
        out[at] = total / weight
    return out


def _draw(axes: Axes, panel: Chart, x: str) -> None:
    for name, line in panel.lines.items():
        look = LOOKS.get(name, OTHER)
        finite = np.isfinite(line.y) & (line.y > 0 if panel.logarithmic else True)
        at, y = line.x[finite], line.y[finite]
        if len(at) <= _FEW:
            axes.plot(at, y, look.stroke, color=look.colour, marker=look.marker, label=name)
            continue
        over = max(2, len(at) // _FEW)
        raw, mean = downsample(Line(at, y)) if len(at) > _MANY else (Line(at, y), Line(at, y))
        axes.plot(*raw, "-", color=look.colour, alpha=0.3, linewidth=0.8, label=f"{name}, raw")
        smooth = exponential_moving_average(mean.y, max(2, over * len(mean.y) // len(at)))
        label = f"{name}, over {over} points"
        axes.plot(mean.x, smooth, look.stroke, color=look.colour, label=label)
    if panel.logarithmic:
        axes.set_yscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")  # not as powers of ten in TeX
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain if _magnitudes(panel) < 1.5 else NullFormatter())
    if panel.best is not None:
        axes.axvline(panel.best, color="#555555", linewidth=1, linestyle="-.", label="best")
    axes.set_title(panel.title)
    axes.set_xlabel(x)
    axes.set_ylabel(panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if len(axes.get_lines()) > 1:
        axes.legend(fontsize=8)


def _magnitudes(panel: Chart) -> float:
    """Returns the orders of magnitude between the smallest and the largest positive value."""
    values = np.concatenate([line.y for line in panel.lines.values()])
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.log10(values.max() / values.min())) if len(values) else 0.0
