"""Draws grids of images with captions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.reporting.figures.style import VERMILION, renders_png, truncate

_TILE = 0.78  # side length of an image; this and the lengths below are in inches
_LINE = 0.12  # height of a caption line
_CAPTION = 0.08  # padding of a caption
_ONE_LINE, _MORE_LINES = (14, 7.5), (17, 6.5)  # maximum characters per line, font size in points
_GAP = 0.08


class CaptionedImages(NamedTuple):
    """Images with captions.

    Attributes:
      images: uint8 or float [n, H, W, C], C 1 or 3; with another C, the first channel is shown.
      captions: n captions of one or more lines; empty: no captions. See `join_captions`.
      marked: indices of the images with a frame and a bold caption.
    """

    images: np.ndarray
    captions: Sequence[str] = ()
    marked: Collection[int] = ()

    @property
    def lines(self) -> int:
        """The number of lines of the longest caption."""
        return max((caption.count("\n") + 1 for caption in self.captions), default=0)


def join_captions(parts: Sequence[Sequence[str]]) -> list[str]:
    """Joins the parts of each caption: on one line if all captions fit, else one line per part."""
    together = [" ".join(each) for each in parts]
    fit = all(len(each) <= _ONE_LINE[0] for each in together)
    return together if fit else ["\n".join(each) for each in parts]


@renders_png
def grid(tiles: CaptionedImages, *, columns: int, title: str) -> Figure:
    """Draws images in a grid, from left to right and from top to bottom.

    Args:
      tiles: 1 or more images.
      columns: maximum number of columns.
      title: title of the figure.
    """
    columns = min(columns, len(tiles.images))
    rows = -(-len(tiles.images) // columns)
    height = _height(tiles.lines)
    axes, figure = _sheet(rows, columns, title, height)
    low, high = _range(tiles.images)
    for at in range(len(tiles.images)):
        row, column = divmod(at, columns)
        _place(axes, tiles, at, row * height, column, low, high)
    return figure


@renders_png
def image_rows(
    lines: Sequence[tuple[str, CaptionedImages]], *, title: str, margin: float
) -> Figure:
    """Draws rows of images, each with a name on its left.

    Args:
      lines: name and images of each row; 1 or more rows, with 1 or more images in total.
      title: title of the figure.
      margin: width of the space for the names, in inches.
    """
    columns = max(len(tiles.images) for _, tiles in lines)
    height = _height(max(tiles.lines for _, tiles in lines))
    axes, figure = _sheet(len(lines), columns, title, height, margin)
    some = [tiles.images for _, tiles in lines if len(tiles.images)]
    low, high = _range(np.concatenate(some))
    for row, (name, tiles) in enumerate(lines):
        axes.text(-0.1, row * height + _TILE / 2, name, ha="right", va="center", fontsize=9)
        for at in range(len(tiles.images)):
            _place(axes, tiles, at, row * height, at, low, high)
    return figure


def _height(lines: int) -> float:
    """Returns the distance between rows in inches, for captions of `lines` lines."""
    return _TILE + _GAP + bool(lines) * _CAPTION + lines * _LINE


def _sheet(
    rows: int, columns: int, title: str, height: float, margin: float = 0.0
) -> tuple[Axes, Figure]:
    """Returns the axes, in inches from the first image's upper left corner, and the figure."""
    width = columns * (_TILE + _GAP) - _GAP
    tall = rows * height - _GAP
    left, right = 0.15 + margin, max(0.15, 3.2 - width - margin)  # leave room for the title
    top, bottom = 0.42, 0.12
    whole = width + left + right, tall + top + bottom
    figure = Figure(figsize=whole)
    axes = figure.add_axes((left / whole[0], bottom / whole[1], width / whole[0], tall / whole[1]))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(tall, 0)
    figure.text(0.15 / whole[0], 1 - 0.14 / whole[1], title, va="top", fontsize=10)
    return axes, figure


def _place(
    axes: Axes, tiles: CaptionedImages, at: int, y: float, column: int, low: float, high: float
) -> None:
    x = column * (_TILE + _GAP)
    axes.imshow(
        _pixels(tiles.images[at], low, high),
        extent=(x, x + _TILE, y + _TILE, y),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest" if max(tiles.images.shape[1:3]) <= 100 else "antialiased",
    )
    # Undo the equal aspect ratio that imshow sets.
    axes.set_aspect("auto")
    wrong = at in tiles.marked
    if wrong:
        axes.plot(
            [x, x + _TILE, x + _TILE, x, x],
            [y, y, y + _TILE, y + _TILE, y],
            color=VERMILION,
            linewidth=2,
            clip_on=False,
        )
    if tiles.captions:
        limit, size = _ONE_LINE if tiles.lines == 1 else _MORE_LINES
        axes.text(
            x + _TILE / 2,
            y + _TILE + 0.03,
            "\n".join(truncate(line, limit) for line in tiles.captions[at].split("\n")),
            ha="center",
            va="top",
            fontsize=size,
            fontweight="bold" if wrong else "normal",
        )


def _range(images: np.ndarray) -> tuple[float, float]:
    """Returns the values drawn as black and white: the range of uint8, or the finite extremes."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    finite = images[np.isfinite(images)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1


def _pixels(image: np.ndarray, low: float, high: float) -> np.ndarray:
    shown = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
    return shown if shown.shape[-1] == 3 else shown[..., 0]
