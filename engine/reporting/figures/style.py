"""Sets the style of all figures and renders them as PNG.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), which colour-blind readers can
distinguish. No figure relies on colour alone. The PNGs do not depend on the user's Matplotlib
settings, the time or the screen.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, ParamSpec

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure


class SeriesStyle(NamedTuple):
    """The colour, line style, marker and hatch that distinguish a curve or a series of bars."""

    colour: str
    stroke: str | tuple  # line style of Matplotlib
    marker: str
    hatch: str


BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
_TRAIN = SeriesStyle(BLUE, "-", "o", "")
_TEST = SeriesStyle(GREEN, ":", "^", "...")
_VALIDATION_SETS = (
    SeriesStyle(VERMILION, "--", "s", "///"),
    SeriesStyle("#CC79A7", "-.", "D", "\\\\\\"),
    SeriesStyle("#E69F00", (0, (5, 1)), "v", "xxx"),
    SeriesStyle("#56B4E9", (0, (3, 1, 1, 1)), "P", "+++"),
    SeriesStyle("#333333", (0, (1, 1)), "X", "ooo"),
)
MAX_NAMES = 120  # maximum number of class names on an axis

_SETTINGS: dict[str, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # included in Matplotlib
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a class name may contain $
}

P = ParamSpec("P")


def split_styles(splits: Iterable[str]) -> dict[str, SeriesStyle]:
    """Returns the style of each split by name; splits other than train and test are validation.

    Validation sets have styles by their order, the first one that of "validation". From the sixth
    set on, styles repeat.
    """
    styles, sets = {}, itertools.cycle(_VALIDATION_SETS)
    for split in splits:
        fixed = {"train": _TRAIN, "test": _TEST}.get(split)
        styles[split] = fixed or next(sets)
    return styles


def renders_png(function: Callable[P, Figure]) -> Callable[P, bytes]:
    """Decorates a function that draws a figure: the decorated function returns the PNG as bytes."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with style.context([_SETTINGS], after_reset=True):
            out = io.BytesIO()
            function(*args, **kwargs).savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()

    return draw


def set_class_ticks(axes: Axes, which: str, names: list[str], upright: bool = False) -> None:
    """Labels an axis of a chart with class names: all names, or every n-th, at most `MAX_NAMES`.

    Class k is at position k. Names of more than 16 characters are truncated.

    Args:
      axes: chart.
      which: axis to label, "x" or "y".
      names: class names, 1 or more.
      upright: whether to rotate the names by 90 degrees where a name has more than 2 characters.
    """
    every = -(-len(names) // MAX_NAMES)
    shown = range(0, len(names), every)
    size = 9 if len(shown) <= 20 else 7 if len(shown) <= 60 else 6
    rotation = 90 if upright and max(map(len, names)) > 2 else 0
    labels = [truncate(names[index]) for index in shown]
    set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
    set_ticks(shown, labels, rotation=rotation, fontsize=size)


def truncate(name: str, limit: int = 16) -> str:
    """Returns a name, cut to `limit` characters with an ellipsis at the end if it is longer."""
    return name if len(name) <= limit else name[: limit - 1] + "\u2026"
