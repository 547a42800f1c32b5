"""Size and position of the foreground in grey images: measured in data sets, applied to images.

The foreground ("ink") is the pixels that contrast with a plain background. A network is trained on
one layout, such as MNIST's, whose digits fit in 20 of 28 pixels and are centred by their mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

_COMMON = 0.9  # smallest fraction of a data set's images with a dark, or with a light background
_PLAIN = 12  # of 255: largest difference from the median of a plain border
_INK = 0.25  # of the maximum: smallest foreground strength of a foreground pixel
_MIN_CONTRAST = 16  # of 255: smallest contrast of foreground to background
_FINE = 8  # input pixels per output pixel; from twice as many on, blocks are averaged first


class InkLayout(NamedTuple):
    """Background, and size and position of the foreground, in a data set of grey images."""

    background: int  # 0 to 255: median over the images of the median of the outermost pixels
    extent: float  # larger of height / H and width / W of the foreground's box; median of images
    centre: tuple[float, float]  # its centre of mass, (row / H, column / W); mean of the images

    @property
    def dark(self) -> bool:
        """Whether the background is dark (below 128)."""
        return self.background < 128


def layout(images: np.ndarray) -> InkLayout | None:
    """Returns the layout of the foreground in a sample of a data set, uint8 [n, H, W, 1].

    Returns None unless at least 90% of the images have a plain dark background, or at least 90% a
    plain light one; and None if no image with that background has a foreground.
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
    """Redraws an image's foreground, at full contrast, in the size and position of a layout.

    The image, uint8 [H, W, 1], has a dark background if `like.dark`, else a light one. The result
    has the layout's background. Returns uint8 [height, width, 1]; None if no foreground stands out
    from the background.
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
    """Returns "dark" or "light" if at least 90% of `of` images are of this kind, else "".

    `kinds` are the backgrounds, "dark" or "light", of the images that count, at most `of`.
    """
    return next((kind for kind in ("dark", "light") if kinds.count(kind) >= _COMMON * of), "")


def border_kind(luminance: np.ndarray) -> str:
    """Returns "dark" if the median of the outermost pixels of [H, W] is below 128, else "light"."""
    return "dark" if _border(luminance) < 128 else "light"


def plain_kind(luminance: np.ndarray) -> str:
    """Returns "dark" or "light" for an image [H, W] whose whole border is plain, else "".

    The border is plain if all outermost pixels are dark (below 128), or all are light, and all are
    within `_PLAIN` of their median.
    """
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
    """Returns whether at least half of the outermost pixels are within `_PLAIN` of their median."""
    difference = np.abs(_outermost(luminance) - _border(luminance))
    return bool((difference <= _PLAIN).mean() >= 0.5)


def _ink(luminance: np.ndarray, dark: bool) -> np.ndarray:
    """Returns each pixel's contrast to the background, divided by the maximum: float32 [H, W].

    The background is the median of the outermost pixels. If `dark`, only pixels brighter than the
    background have contrast, else only darker ones. The result is all 0 if the maximum contrast is
    below `_MIN_CONTRAST`.
    """
    difference = luminance.astype(np.float32) - np.float32(_border(luminance))
    strength = np.maximum(0, difference if dark else -difference)
    maximum = strength.max()
    return strength / maximum if maximum >= _MIN_CONTRAST else np.zeros_like(strength)


def _box(strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and past-the-last (row, column) of the foreground's box, int [2] each."""
    positions = np.argwhere(strength >= _INK)
    return positions.min(axis=0), positions.max(axis=0) + 1


def _sides(strength: np.ndarray) -> np.ndarray:
    """Returns (height, width) of the foreground's bounding box, in pixels, int [2]."""
    upper, lower = _box(strength)
    return lower - upper


def _centre(strength: np.ndarray) -> np.ndarray:
    """Returns (row, column) of the foreground's centre of mass, in pixels from the top left."""
    ink = np.where(strength >= _INK, strength, 0).astype(np.float64)
    moments = [
        (ink.sum(axis=1 - axis) * (np.arange(ink.shape[axis]) + 0.5)).sum() for axis in (0, 1)
    ]
    return np.array(moments) / ink.sum()
