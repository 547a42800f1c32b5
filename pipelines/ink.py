"""Measures size and position of the foreground in a data set, and redraws images accordingly.

The foreground ("ink") is what stands out from a plain background. MNIST's digits were cropped,
scaled to 20 of 28 pixels and centred by their mass; Fashion-MNIST's clothes fill the frame. A
network is trained on the layout of one data set. A digit in a corner of a sheet, or one that fills
its image, is therefore redrawn in that layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

_LIKE = 0.9  # smallest fraction of a data set's images that have the same kind of background
_PLAIN = 12  # of 255: largest difference from the median of a plain border
_INK = 0.25  # of the maximum: smallest foreground strength of a foreground pixel
_LEAST = 16  # of 255: smallest contrast of foreground to background
_FINE = 8  # input pixels per output pixel; from twice as many on, blocks are averaged first


class InkLayout(NamedTuple):
    """Size and position of the foreground in a data set of grey images.

    Attributes:
      ground: brightness of the background in 0 to 255, the median of the images' borders.
      extent: size of the foreground's bounding box relative to the image, the larger of height and
        width; median of the images.
      centre: (row, column) of the foreground's centre of mass, each in 0 to 1; mean of the images.
    """

    ground: int
    extent: float
    centre: tuple[float, float]

    @property
    def dark(self) -> bool:
        """Whether the background is dark."""
        return self.ground < 128


def layout(images: np.ndarray) -> InkLayout | None:
    """Measures size and position of the foreground in a data set's images.

    Args:
      images: uint8 [n, H, W, 1], a sample of the data set.

    Returns:
      The layout; None if fewer than nine in ten images have a plain background of the same kind,
      or if none has a foreground.
    """
    plain = [image[..., 0] for image in images if _is_plain(image[..., 0])]
    if not (common := ground([border(image) for image in plain], of=len(images))):
        return None
    dark = common == "dark"
    like = [image for image in plain if (border(image) < 128) == dark]
    strengths = [strength for image in like if (strength := _ink(image, dark)).any()]
    if not strengths:
        return None
    shape = np.array(images.shape[1:3])
    extents = [float((_sides(strength) / shape).max()) for strength in strengths]
    row, column = np.mean([_centre(each) / shape for each in strengths], axis=0).tolist()
    level = round(float(np.median([border(image) for image in like])))
    return InkLayout(level, float(np.median(extents)), (row, column))


def fitted(image: np.ndarray, height: int, width: int, like: InkLayout) -> np.ndarray | None:
    """Redraws an image's foreground with the size, contrast and position usual in a data set.

    Args:
      image: uint8 [H, W, 1], with a background of the same kind (dark or light) as the data set.
      height: height of the data set's images.
      width: width of the data set's images.
      like: layout of the data set's foreground.

    Returns:
      uint8 [height, width, 1]; None if no foreground stands out from the background.
    """
    strength = _ink(image[..., 0], like.dark)
    if not strength.any():
        return None
    coarser = int(_sides(strength).max()) // (_FINE * max(height, width))
    if coarser > 1:
        strength = np.asarray(Image.fromarray(strength).reduce(coarser))
        strength = strength / strength.max()
    # The part of the image that becomes the result. Its size gives the foreground the data set's
    # extent, its position gives it the data set's centre of mass; it is then shifted to include the
    # whole foreground.
    part = np.array([height, width]) * (_sides(strength) / (height, width)).max() / like.extent
    upper, lower = _box(strength)
    start = _centre(strength) - np.array(like.centre) * part
    start = np.maximum(np.minimum(start, upper), lower - part)
    before = np.maximum(0, np.ceil(-start)).astype(int)
    after = np.maximum(0, np.ceil(start + part - strength.shape)).astype(int)
    whole = np.pad(strength, np.stack([before, after], axis=1))
    row, column = start + before
    resized = Image.fromarray(whole).resize(
        (width, height),
        Image.Resampling.BILINEAR,
        box=(column, row, min(column + part[1], whole.shape[1]), min(row + part[0], len(whole))),
    )
    drawn = np.asarray(resized)
    drawn = drawn / drawn.max()  # gives thin lines the contrast of thick ones
    ink = 255 if like.dark else 0
    return np.rint(like.ground + drawn * (ink - like.ground)).astype(np.uint8)[..., None]


def ground(borders: Sequence[float], of: int) -> str:
    """Returns the background of at least nine in ten images, "dark" or "light"; "" if mixed.

    Args:
      borders: medians of the images' borders, see `border`.
      of: number of images; those that are not in `borders` count as neither dark nor light.
    """
    dark = sum(each < 128 for each in borders)
    light = len(borders) - dark
    return "dark" if dark >= _LIKE * of else "light" if light >= _LIKE * of else ""


def border(luminance: np.ndarray) -> float:
    """Returns the median of the outermost pixels of a luminance image, [H, W]."""
    return float(np.median(_outermost(luminance)))


def border_kind(luminance: np.ndarray) -> str:
    """Returns "dark" or "light" by the median of the outermost pixels of luminance [H, W]."""
    return "dark" if border(luminance) < 128 else "light"


def plain_kind(luminance: np.ndarray) -> str:
    """Returns the kind of an image's plain border, "dark" or "light"; "" if it is not plain.

    A border is plain if all its pixels are close to their median and of the same kind.

    Args:
      luminance: [H, W].
    """
    pixels, kind = _outermost(luminance), border_kind(luminance)
    alike = bool((np.abs(pixels - border(luminance)) <= _PLAIN).all())
    same = bool(((pixels < 128) == (kind == "dark")).all())
    return kind if alike and same else ""


def _outermost(luminance: np.ndarray) -> np.ndarray:
    sides = luminance[0], luminance[-1], luminance[:, 0], luminance[:, -1]
    return np.concatenate(sides).astype(np.float64)


def _is_plain(luminance: np.ndarray) -> bool:
    """Returns whether at least half of the outermost pixels are close to their median."""
    off = np.abs(_outermost(luminance) - border(luminance))
    return bool((off <= _PLAIN).mean() >= 0.5)


def _ink(luminance: np.ndarray, dark: bool) -> np.ndarray:
    """Returns the foreground strength, float32 [H, W] in 0..1; all zeros without a foreground."""
    off = luminance.astype(np.float32) - np.float32(border(luminance))
    strength = np.maximum(0, off if dark else -off)
    maximum = strength.max()
    return strength / maximum if maximum >= _LEAST else np.zeros_like(strength)


def _box(strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first (row, column) of the foreground's bounding box, and the end (exclusive)."""
    places = np.argwhere(strength >= _INK)
    return places.min(axis=0), places.max(axis=0) + 1


def _sides(strength: np.ndarray) -> np.ndarray:
    """Returns height and width of the foreground's bounding box, in pixels."""
    upper, lower = _box(strength)
    return lower - upper


def _centre(strength: np.ndarray) -> np.ndarray:
    """Returns (row, column) of the foreground's centre of mass, in pixels from the upper left."""
    ink = np.where(strength >= _INK, strength, 0).astype(np.float64)
    places = [
        float((ink.sum(axis=1 - axis) * (np.arange(ink.shape[axis]) + 0.5)).sum())
        for axis in (0, 1)
    ]
    return np.array(places) / ink.sum()
