"""Draws target and predicted class masks over the images of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from engine.reporting.figures.grids import pixel_limits
from engine.reporting.figures.style import renders_png, truncate

# Okabe and Ito (2008); they differ in lightness too. Class 0, often the background, is black.
_COLOURS = {
    0: "#000000",
    1: "#E69F00",
    2: "#56B4E9",
    3: "#009E73",
    4: "#F0E442",
    5: "#0072B2",
    6: "#D55E00",
    7: "#CC79A7",
}
_LEFT_OUT = "#BBBBBB"  # colour of positions that do not count
_OPACITY = 0.55  # of a mask over an image
_SIDE, _GAP, _CAPTION = 1.25, 0.06, 0.22  # a picture, between pictures, of a caption; inches
_BETWEEN = 0.3  # between two examples, inches
_LEGEND_COLUMN, _LEGEND_LINE = 1.5, 0.19  # inches
_MAX_LEGEND = 24  # maximum number of classes in the legend
_PER_ROW = 2  # examples


class MaskedExample(NamedTuple):
    """An example with a target mask and a predicted mask: the class index at each position.

    Positions with a negative index in the target mask are ignored.
    """

    caption: str
    image: np.ndarray | None  # uint8 or float [H, W, 1 or 3], of any size; None: no image
    target: np.ndarray  # int [h, w]
    predicted: np.ndarray  # int [h, w]


@renders_png
def masks(examples: Sequence[MaskedExample], names: Sequence[str], *, title: str) -> Figure:
    """Draws 1 or more examples: image, target, prediction, and a map of the wrong predictions.

    The map is black where the prediction is wrong, grey where the target is negative, else white.

    Args:
      examples: examples, all with images or all without.
      names: names of the classes, for the legend.
      title: title of the figure.
    """
    has_images = examples[0].image is not None
    kinds = (*(["image"] if has_images else []), "target", "predicted", "wrong")
    wide = len(kinds) * (_SIDE + _GAP) - _GAP + _BETWEEN  # width of an example
    tall = _SIDE + _CAPTION + _GAP
    columns = min(_PER_ROW, len(examples))
    rows = -(-len(examples) // columns)
    present = _present(examples, len(names))
    per_line = max(1, int((columns * wide) // _LEGEND_COLUMN))
    lines = -(-len(present) // per_line)
    top, bottom = 0.55, 0.15 + _LEGEND_LINE * lines
    width, height = columns * wide - _BETWEEN, rows * tall
    total = width + 0.3, height + top + bottom
    figure = Figure(figsize=total)
    axes = figure.add_axes(
        (0.15 / total[0], bottom / total[1], width / total[0], height / total[1])
    )
    axes.set_axis_off()
    figure.text(0.15 / total[0], 1 - 0.14 / total[1], title, va="top", fontsize=10)
    for index, example in enumerate(examples):
        row, column = divmod(index, columns)
        for place, kind in enumerate(kinds):
            x, y = column * wide + place * (_SIDE + _GAP), row * tall + _CAPTION
            if not row:
                axes.text(x + _SIDE / 2, -0.04, kind, ha="center", va="bottom", fontsize=8)
            _draw(axes, example, kind, (x, x + _SIDE, y + _SIDE, y))
        caption = truncate(example.caption, 24 * len(kinds))
        axes.text(column * wide, row * tall + _CAPTION - 0.03, caption, va="bottom", fontsize=8)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    handles = [Patch(color=_colour(each), label=truncate(names[each])) for each in present]
    if handles:
        figure.legend(
            handles=handles,
            ncols=min(per_line, len(handles)),
            loc="lower left",
            bbox_to_anchor=(0, 0),
            fontsize=8,
        )
    return figure


def _draw(
    axes: Axes, example: MaskedExample, kind: str, extent: tuple[float, float, float, float]
) -> None:
    opacity = 1.0
    if example.image is not None and kind != "wrong":
        axes.imshow(_grey_or_colour(example.image), extent=extent, interpolation="antialiased")
        opacity = _OPACITY
    if kind == "wrong":
        colours = np.ones((*example.target.shape, 3))
        colours[example.target != example.predicted] = 0
        colours[example.target < 0] = to_rgb(_LEFT_OUT)
    elif kind != "image":
        colours = _colours(example.target if kind == "target" else example.predicted)
    if kind != "image":
        axes.imshow(colours, extent=extent, alpha=opacity, interpolation="nearest")
    left, right, bottom, top = extent
    outline = [left, right, right, left, left], [top, top, bottom, bottom, top]
    axes.plot(*outline, color="#888888", linewidth=0.6, clip_on=False)


def _grey_or_colour(image: np.ndarray) -> np.ndarray:
    """Returns an image as RGB from 0 to 1, float64 [H, W, 3]; nan becomes 0.

    `image` is uint8 or float [H, W, C], and C is 1 or 3. The range of `pixel_limits` is scaled to
    0 to 1.
    """
    low, high = pixel_limits(image)
    scaled = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
    return np.broadcast_to(np.nan_to_num(scaled), (*image.shape[:2], 3))


def _colours(mask: np.ndarray) -> np.ndarray:
    """Returns the colour of the class at each position of a mask, RGB from 0 to 1, [h, w, 3]."""
    classes, inverse = np.unique(mask, return_inverse=True)
    table = np.array([_colour(each) for each in classes.tolist()])
    return table[inverse.reshape(mask.shape)]


def _colour(label: int) -> tuple[float, float, float]:
    """Returns the colour of a class, RGB from 0 to 1.

    Classes 0 to 7 have fixed colours, classes from 8 have computed ones; negative labels are grey.
    """
    if label < 0:
        return to_rgb(_LEFT_OUT)
    if label in _COLOURS:
        return to_rgb(_COLOURS[label])
    hue = label * 0.618034 % 1  # the golden ratio spreads the hues of neighbours
    red, green, blue = hsv_to_rgb((hue, 0.55 + 0.15 * (label % 3), 0.95 - 0.2 * (label % 4)))
    return float(red), float(green), float(blue)


def _present(examples: Sequence[MaskedExample], classes: int) -> list[int]:
    """Returns the first `_MAX_LEGEND` classes below `classes` that occur in any mask, sorted."""
    both = [each for example in examples for each in (example.target, example.predicted)]
    found = np.unique(np.concatenate([each.ravel() for each in both]))
    return found[(found >= 0) & (found < classes)][:_MAX_LEGEND].tolist()
