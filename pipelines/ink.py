"""Measures size and position of the foreground in a data set, and redraws images accordingly.

The foreground ("ink") is what stands out from a plain background. A network is trained on one
layout, such as MNIST's, whose digits are 20 of 28 pixels high and centred by their mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

_COMMON = 0.9  # smallest fraction of a data set's images that have the same kind of background
_PLAIN = 12  # of 255: largest difference from the median of a plain border
_INK = 0.25  # of the maximum: smallest foreground strength of a foreground pixel
_MIN_CONTRAST = 16  # of 255: smallest contrast of foreground to background
_FINE = 8  # input pixels per output pixel; from twice as many on, blocks are averaged first


class InkLayout(NamedTuple):
    """Size and position of the foreground in a data set of grey images."""

    background: int  # brightness of the background in 0 to 255, the median of the images' borders
    extent: float  # larger of height and width of its bounding box, relative to the image; median
    centre: tuple[float, float]  # (row, column) of its centre of mass, each in 0 to 1; mean

    @property
    def dark(self) -> bool:
        """Whether the background is dark."""
        return self.background < 128


def layout(images: np.ndarray) -> InkLayout | None:
    """Measures size and position of the foreground in a sample of a data set, uint8 [n, H, W, 1].

    Returns None if fewer than nine in ten images have a plain background of the same kind, or if
    none has a foreground.
    """
    plain = [image[..., 0] for image in images if _is_plain(image[..., 0])]
    if not (common := common_background([border_kind(image) for image in plain], of=len(images))):
        return None
    like = [image for image in plain if border_kind(image) == common]
    strengths = [ink for image in like if (ink := _ink(image, common == "dark")).any()]
    if not strengths:
        return None
    shape = np.array(images.shape[1:3])
    extents = [float((_sides(strength) / shape).max()) for strength in strengths]
    row, column = np.mean([_centre(each) / shape for each in strengths], axis=0).tolist()
    level = round(float(np.median([_border(image) for image in like])))
    return InkLayout(level, float(np.median(extents)), (row, column))


def fitted(image: np.ndarray, height: int, width: int, like: InkLayout) -> np.ndarray | None:
    """Redraws an image's foreground with the size, contrast and position usual in a data set.

    The image, uint8 [H, W, 1], has a background of the same kind (dark or light) as the data set.
    Returns uint8 [height, width, 1]; None if no foreground stands out from the background.
    """
    strength = _ink(image[..., 0], like.dark)
    if not strength.any():
        return None
    factor = int(_sides(strength).max()) // (_FINE * max(height, width))
    if factor > 1:
        strength = np.asarray(Image.fromarray(strength).reduce(factor))
        strength = strength / strength.max()
    # The part of the image that becomes the result: its size gives the foreground the data set's
    # extent, its position the data set's centre of mass; it is shifted to include the foreground.
    part = np.array([height, width]) * (_sides(strength) / (height, width)).max() / like.extent
    upper, lower = _box(strength)
    start = _centre(strength) - np.array(like.centre) * part
    start = np.maximum(np.minimum(start, upper), lower - part)
    before = np.maximum(0, np.ceil(-start)).astype(int)
    after = np.maximum(0, np.ceil(start + part - strength.shape)).astype(int)
    padded = np.pad(strength, np.stack([before, after], axis=1))
    row, column = start + before
    box = (column, row, min(column + part[1], padded.shape[1]), min(row + part[0], len(padded)))
    resized = Image.fromarray(padded).resize((width, height), Image.Resampling.BILINEAR, box)
    strength = np.asarray(resized)
    strength = strength / strength.max()  # gives thin lines the contrast of thick ones
    ink = 255 if like.dark else 0
    return np.rint(like.background + strength * (ink - like.background)).astype(np.uint8)[..., None]


def common_background(kinds: Sequence[str], of: int) -> str:
    """Returns the kind of border of at least nine in ten of `of` images; "" if there is none."""
    return next((kind for kind in ("dark", "light") if kinds.count(kind) >= _COMMON * of), "")


def border_kind(luminance: np.ndarray) -> str:
    """Returns "dark" or "light" by the median of the outermost pixels of luminance [H, W]."""
    return "dark" if _border(luminance) < 128 else "light"


def plain_kind(luminance: np.ndarray) -> str:
    """Returns "dark" or "light" if all outermost pixels of luminance [H, W] are alike; else ""."""
    pixels, kind = _outermost(luminance), border_kind(luminance)
    alike = (np.abs(pixels - _border(luminance)) <= _PLAIN).all()
    same_kind = ((pixels < 128) == (kind == "dark")).all()
    return kind if alike and same_kind else ""


def _outermost(luminance: np.ndarray) -> np.ndarray:
    sides = luminance[0], luminance[-1], luminance[:, 0], luminance[:, -1]
    return np.concatenate(sides).astype(np.float64)


def _border(luminance: np.ndarray) -> float:
    return float(np.median(_outermost(luminance)))


def _is_plain(luminance: np.ndarray) -> bool:
    """Returns whether at least half of the outermost pixels are close to their median."""
    difference = np.abs(_outermost(luminance) - _border(luminance))
    return bool((difference <= _PLAIN).mean() >= 0.5)


def _ink(luminance: np.ndarray, dark: bool) -> np.ndarray:
    """Returns the foreground strength, float32 [H, W] in 0..1; all zeros without a foreground."""
    difference = luminance.astype(np.float32) - np.float32(_border(luminance))
    strength = np.maximum(0, difference if dark else -difference)
    maximum = strength.max()
    return strength / maximum if maximum >= _MIN_CONTRAST else np.zeros_like(strength)


def _box(strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first (row, column) of the foreground's bounding box, and the end (exclusive)."""
    positions = np.argwhere(strength >= _INK)
    return positions.min(axis=0), positions.max(axis=0) + 1


def _sides(strength: np.ndarray) -> np.ndarray:
    """Returns height and width of the foreground's bounding box, in pixels."""
    upper, lower = _box(strength)
    return lower - upper


def _centre(strength: np.ndarray) -> np.ndarray:
    """Returns (row, column) of the foreground's centre of mass, in pixels from the upper left."""
    ink = np.where(strength >= _INK, strength, 0).astype(np.float64)
    moments = [
        (ink.sum(axis=1 - axis) * (np.arange(ink.shape[axis]) + 0.5)).sum() for axis in (0, 1)
    ]
    return np.array(moments) / ink.sum()
