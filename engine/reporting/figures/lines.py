"""Draws line charts of the metrics of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from engine.reporting.figures.style import renders_png, split_styles

_MAX_RAW_POINTS = 30  # maximum number of points of a curve that is not smoothed
_MAX_POINTS = 4000  # maximum number of points of a curve that is not binned
_BINS = 1000  # number of bins of a curve with more points


class Line(NamedTuple):
    """A curve; points whose y is not finite are not drawn."""

    x: np.ndarray  # float [n]
    y: np.ndarray  # float [n]


class Chart(NamedTuple):
    """A chart of one or more curves."""

    title: str
    unit: str  # label of the y axis
    lines: Mapping[str, Line]  # curves by name; the style of a split is the same in all figures
    best: float | None = None  # x of the best step, which is marked; None: no mark
    logarithmic: bool = False  # scale of the y axis; if True, only positive values are drawn


@renders_png
def charts(panels: Sequence[Chart], *, x: str) -> Figure:
    """Draws 1 or more charts in rows of two; `x` is the label of every x axis.

    A curve of more than `_MAX_RAW_POINTS` points is drawn smoothed, over the raw curve in a lighter
    shade. Of more than `_MAX_POINTS` points, the raw curve has the minimum and maximum of each of
    `_BINS` bins.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.1 * rows), layout="constrained")
    for number, panel in enumerate(panels, 1):
        _draw(figure.add_subplot(rows, columns, number), panel, x)
    return figure


def downsample(line: Line) -> tuple[Line, Line]:
    """Reduces a curve of `_BINS` or more points to `_BINS` bins, whose sizes differ by 1 at most.

    Returns:
      A curve of 2 * `_BINS` points, the minimum and the maximum of each bin, at the mean x of the
      bin; and a curve of the means of the bins, `_BINS` points.
    """
    edges = np.linspace(0, len(line.x), _BINS + 1).astype(int)
    first, sizes = edges[:-1], np.diff(edges)
    ends = np.stack([np.minimum.reduceat(line.y, first), np.maximum.reduceat(line.y, first)])
    x = np.add.reduceat(line.x, first) / sizes
    return Line(np.repeat(x, 2), ends.T.ravel()), Line(x, np.add.reduceat(line.y, first) / sizes)


def exponential_moving_average(y: np.ndarray, points: int) -> np.ndarray:
    """Returns the bias-corrected EMA of `y` over about `points` points, float64 [n].

    The decay is 1 - 1 / `points`. The bias correction divides by the sum of the weights of the
    average (Kingma and Ba, 2015), so that the first element is y[0].
    """
    decay = 1 - 1 / points
    total, weight, averages = 0.0, 0.0, np.empty(len(y))
    for index, value in enumerate(y.tolist()):
        total, weight = decay * total + (1 - decay) * value, decay * weight + 1 - decay
        averages[index] = total / weight
    return averages


def _draw(axes: Axes, panel: Chart, x: str) -> None:
    styles = split_styles(panel.lines)
    for name, line in panel.lines.items():
        style = styles[name]
        drawn = np.isfinite(line.y) & (line.y > 0 if panel.logarithmic else True)
        curve = Line(line.x[drawn], line.y[drawn])
        points = len(curve.x)
        if points <= _MAX_RAW_POINTS:
            axes.plot(
                *curve, linestyle=style.stroke, color=style.colour, marker=style.marker, label=name
            )
            continue
        window = max(2, points // _MAX_RAW_POINTS)
        raw, mean = downsample(curve) if points > _MAX_POINTS else (curve, curve)
        axes.plot(*raw, "-", color=style.colour, alpha=0.3, linewidth=0.8, label=f"{name}, raw")
        smooth = exponential_moving_average(mean.y, max(2, window * len(mean.y) // points))
        label = f"{name}, over {window} points"
        axes.plot(mean.x, smooth, linestyle=style.stroke, color=style.colour, label=label)
    if panel.logarithmic:
        axes.set_yscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")  # not as powers of ten in TeX
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain if _magnitudes(panel) < 1.5 else NullFormatter())
    if panel.best is not None:
        axes.axvline(panel.best, color="#555555", linewidth=1, linestyle="-.", label="best")
    axes.set(title=panel.title, xlabel=x, ylabel=panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if len(axes.get_lines()) > 1:
        axes.legend(fontsize=8)


def _magnitudes(panel: Chart) -> float:
    """Returns log10 of the ratio of largest to smallest positive y; 0 if no y is positive."""
    values = np.concatenate([line.y for line in panel.lines.values()])
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.log10(values.max() / values.min())) if len(values) else 0.0
