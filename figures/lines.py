"""Curves over the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from figures.style import LOOKS, OTHER, drawn

_FEW = 30  # points that need no smoothing
_MANY = 4000  # points, beyond which a pixel has several
_BINS = 1000  # that they are put into then


class Line(NamedTuple):
    """A curve; points that are not finite are left out.

    x: float [n].
    y: float [n].
    """

    x: np.ndarray
    y: np.ndarray


class Panel(NamedTuple):
    """One chart.

    title: above it.
    unit: of the y axis, in words.
    lines: by name; those of splits look the same in every figure.
    best: x of the step that is marked; None: none.
    logarithmic: whether the y axis is.
    """

    title: str
    unit: str
    lines: Mapping[str, Line]
    best: float | None = None
    logarithmic: bool = False


@drawn
def charts(panels: Sequence[Panel], *, x: str, columns: int = 2) -> Figure:
    """Charts side by side that share the x axis' meaning.

    A curve of many points is drawn smoothed, over itself as it is in a lighter shade; where a
    pixel would have several, by their extremes.

    Args:
      panels: 1 or more.
      x: the x axis, in words.
      columns: of charts.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.1 * rows), layout="constrained")
    for at, panel in enumerate(panels):
        _draw(figure.add_subplot(rows, columns, at + 1), panel, x)
    return figure


def thinned(line: Line) -> tuple[Line, Line]:
    """A curve of many points in bins of as many each, but for one: what is drawn in their place.

    Returns:
      the least and the greatest of each bin, one after the other, so that no peak is lost; and the
      mean of each.
    """
    edges = np.linspace(0, len(line.x), _BINS + 1).astype(int)
    first, sizes = edges[:-1], np.diff(edges)
    ends = np.stack([np.minimum.reduceat(line.y, first), np.maximum.reduceat(line.y, first)])
    x = np.add.reduceat(line.x, first) / sizes
    return Line(np.repeat(x, 2), ends.T.ravel()), Line(x, np.add.reduceat(line.y, first) / sizes)


def smoothed(y: np.ndarray, points: int) -> np.ndarray:
    """An exponential moving average over about so many points, float64 [n].

    It is divided by the sum of its weights (Kingma and Ba, 2015), so that it begins where y does.
    """
    decay = 1 - 1 / points
    total, weight, out = 0.0, 0.0, np.empty(len(y))
    for at, value in enumerate(y.tolist()):
        total, weight = decay * total + (1 - decay) * value, decay * weight + 1 - decay
        out[at] = total / weight
    return out


def _draw(axes: Axes, panel: Panel, x: str) -> None:
    for name, line in panel.lines.items():
        look = LOOKS.get(name, OTHER)
        finite = np.isfinite(line.y) & (line.y > 0 if panel.logarithmic else True)
        at, y = line.x[finite], line.y[finite]
        if len(at) <= _FEW:
            axes.plot(at, y, look.stroke, color=look.colour, marker=look.marker, label=name)
            continue
        over = max(2, len(at) // _FEW)
        raw, mean = thinned(Line(at, y)) if len(at) > _MANY else (Line(at, y), Line(at, y))
        axes.plot(*raw, "-", color=look.colour, alpha=0.3, linewidth=0.8, label=f"{name}, raw")
        smooth = smoothed(mean.y, max(2, over * len(mean.y) // len(at)))
        label = f"{name}, over {over} points"
        axes.plot(mean.x, smooth, look.stroke, color=look.colour, label=label)
    if panel.logarithmic:
        axes.set_yscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")  # no powers in TeX
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


def _magnitudes(panel: Panel) -> float:
    """Powers of ten between the least and the greatest value."""
    values = np.concatenate([line.y for line in panel.lines.values()])
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.log10(values.max() / values.min())) if len(values) else 0.0
