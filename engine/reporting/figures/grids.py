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
    """Images with optional captions; the marked ones have a frame and a bold caption."""

    images: np.ndarray  # uint8 or float [n, H, W, C]; if C is not 3, the first channel is shown
    captions: Sequence[str] = ()  # one per image, of one or more lines; empty: none
    marked: Collection[int] = ()  # indices of the marked images

    @property
    def lines(self) -> int:
        """The largest number of lines of a caption; 0 without captions."""
        return max((caption.count("\n") + 1 for caption in self.captions), default=0)


def join_captions(parts: Sequence[Sequence[str]]) -> list[str]:
    """Joins the parts of each caption, `parts[i]` for caption i; returns the captions.

    The parts are joined by spaces if then all captions fit on one line (14 characters), else by
    newlines.
    """
    together = [" ".join(each) for each in parts]
    fit = all(len(each) <= _ONE_LINE[0] for each in together)
    return together if fit else ["\n".join(each) for each in parts]


@renders_png
def grid(tiles: CaptionedImages, *, columns: int, title: str) -> Figure:
    """Draws 1 or more images in a grid of at most `columns` columns, row by row."""
    columns = min(columns, len(tiles.images))
    rows = -(-len(tiles.images) // columns)
    height = _row_height(tiles.lines)
    axes, figure = _sheet(rows, columns, title, height)
    limits = pixel_limits(tiles.images)
    for index in range(len(tiles.images)):
        row, column = divmod(index, columns)
        _draw_tile(axes, tiles, index, row * height, column, limits)
    return figure


@renders_png
def image_rows(rows: Sequence[tuple[str, CaptionedImages]], *, title: str, margin: float) -> Figure:
    """Draws 1 or more rows of images, each given as (name, images), with the name on its left.

    `margin` is the width in inches reserved for the names. Rows without images are allowed, but at
    least one row must have images.
    """
    columns = max(len(tiles.images) for _, tiles in rows)
    height = _row_height(max(tiles.lines for _, tiles in rows))
    axes, figure = _sheet(len(rows), columns, title, height, margin)
    limits = pixel_limits(np.concatenate([tiles.images for _, tiles in rows if len(tiles.images)]))
    for row, (name, tiles) in enumerate(rows):
        axes.text(-0.1, row * height + _TILE / 2, name, ha="right", va="center", fontsize=9)
        for column in range(len(tiles.images)):
            _draw_tile(axes, tiles, column, row * height, column, limits)
    return figure


def _row_height(lines: int) -> float:
    """Returns the distance between rows in inches, for captions of `lines` lines."""
    return _TILE + _GAP + bool(lines) * _CAPTION + lines * _LINE


def _sheet(
    rows: int, columns: int, title: str, height: float, margin: float = 0.0
) -> tuple[Axes, Figure]:
    """Creates a figure for a grid of images; returns (axes, figure).

    The coordinates of the axes are inches from the upper left corner of the first image.

    Args:
      rows: number of rows.
      columns: number of columns.
      title: title of the figure.
      height: distance between rows in inches.
      margin: width in inches reserved to the left of the images.
    """
    width, height = columns * (_TILE + _GAP) - _GAP, rows * height - _GAP
    left, right = 0.15 + margin, max(0.15, 3.2 - width - margin)  # leave room for the title
    top, bottom = 0.42, 0.12
    total = width + left + right, height + top + bottom
    figure = Figure(figsize=total)
    axes = figure.add_axes(
        (left / total[0], bottom / total[1], width / total[0], height / total[1])
    )
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    figure.text(0.15 / total[0], 1 - 0.14 / total[1], title, va="top", fontsize=10)
    return axes, figure


def _draw_tile(
    axes: Axes,
    tiles: CaptionedImages,
    index: int,
    y: float,
    column: int,
    limits: tuple[float, float],
) -> None:
    x = column * (_TILE + _GAP)
    low, high = limits
    pixels = np.clip((tiles.images[index].astype(np.float64) - low) / (high - low), 0, 1)
    axes.imshow(
        pixels if pixels.shape[-1] == 3 else pixels[..., 0],
        extent=(x, x + _TILE, y + _TILE, y),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest" if max(pixels.shape[:2]) <= 100 else "antialiased",
    )
    axes.set_aspect("auto")  # undoes the equal aspect ratio that imshow sets
    marked = index in tiles.marked
    if marked:
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
            "\n".join(truncate(line, limit) for line in tiles.captions[index].split("\n")),
            ha="center",
            va="top",
            fontsize=size,
            fontweight="bold" if marked else "normal",
        )


def pixel_limits(images: np.ndarray) -> tuple[float, float]:
    """Returns the pixel values that are drawn black and white: 0 and 255 for uint8.

    For other dtypes, these are the minimum and maximum of the finite values (0 and 1 if no value is
    finite). If the minimum and maximum are equal, 1 is added to the maximum.
    """
    if images.dtype == np.uint8:
        return 0.0, 255.0
    finite = images[np.isfinite(images)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else max(low + 1, float(np.nextafter(low, np.inf)))
