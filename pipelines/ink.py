"""Ink on a plain ground: how large and where it is drawn in a data set, and a picture drawn so too.

MNIST's digits were cut out, scaled to 20 of 28 pixels and centred by their mass; Fashion-MNIST's
clothes fill the frame. A network knows its data set's way alone, so that a digit in a corner of a
sheet, or one that fills its picture, has to be brought to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

_LIKE = 0.9  # of a data set's images with the same ground: it has one
_PLAIN = 12  # of 255: how far alike is
_INK = 0.25  # of the strongest ink is ink
_LEAST = 16  # of 255: less does not stand out from the ground
_FINE = 8  # pixels of a picture for each of the result: more are averaged first


class Layout(NamedTuple):
    """How a data set of grey images lays ink on its ground.

    ground: of 255, the median of the images' borders.
    extent: the longer side of the ink by that of the image, median of the images.
    centre: (row, column) of the centre of its mass, in 0 to 1, mean of the images.
    """

    ground: int
    extent: float
    centre: tuple[float, float]

    @property
    def dark(self) -> bool:
        """Whether the ground is."""
        return self.ground < 128


def layout(images: np.ndarray) -> Layout | None:
    """How a data set's images are laid out.

    Args:
      images: uint8 [n, H, W, 1], some of them.

    Returns:
      None where fewer than nine in ten stand on a plain ground, all of the same kind.
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
    return Layout(level, float(np.median(extents)), (row, column))


def fitted(image: np.ndarray, height: int, width: int, like: Layout) -> np.ndarray | None:
    """A picture with its ink as large, as strong and where a data set has it.

    Args:
      image: uint8 [H, W, 1], its ground dark or light as the data set's is.
      height: of the data set's images.
      width: likewise.
      like: how they are laid out.

    Returns:
      uint8 [height, width, 1]; None where no ink stands out from the ground.
    """
    strength = _ink(image[..., 0], like.dark)
    if not strength.any():
        return None
    coarser = int(_sides(strength).max()) // (_FINE * max(height, width))
    if coarser > 1:
        strength = np.asarray(Image.fromarray(strength).reduce(coarser))
        strength = strength / strength.max()
    # The part of the picture that is the result: as large as it has to be, ink where it has to be,
    # all of it.
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
    drawn = drawn / drawn.max()  # thin lines are as strong as thick ones
    ink = 255 if like.dark else 0
    return np.rint(like.ground + drawn * (ink - like.ground)).astype(np.uint8)[..., None]


def ground(borders: Sequence[float], of: int) -> str:
    """The ground that nine in ten images have: "dark", "light", or "" where there is none.

    Args:
      borders: of images, see `border`.
      of: how many images there are; those without a border count against both.
    """
    dark = sum(each < 128 for each in borders)
    light = len(borders) - dark
    return "dark" if dark >= _LIKE * of else "light" if light >= _LIKE * of else ""


def border(luminance: np.ndarray) -> float:
    """The median of the outermost pixels of [H, W]."""
    return float(np.median(_outermost(luminance)))


def border_kind(luminance: np.ndarray) -> str:
    """Returns "dark" or "light", the kind of the median of the outermost pixels of [H, W]."""
    return "dark" if border(luminance) < 128 else "light"


def plain_kind(luminance: np.ndarray) -> str:
    """Returns "dark" or "light" where all outermost pixels of [H, W] are so and alike, else ""."""
    pixels, kind = _outermost(luminance), border_kind(luminance)
    alike = bool((np.abs(pixels - border(luminance)) <= _PLAIN).all())
    same = bool(((pixels < 128) == (kind == "dark")).all())
    return kind if alike and same else ""


def _outermost(luminance: np.ndarray) -> np.ndarray:
    sides = luminance[0], luminance[-1], luminance[:, 0], luminance[:, -1]
    return np.concatenate(sides).astype(np.float64)


def _is_plain(luminance: np.ndarray) -> bool:
    """Whether half of the outermost pixels are alike, or more; ink may reach the border."""
    off = np.abs(_outermost(luminance) - border(luminance))
    return bool((off <= _PLAIN).mean() >= 0.5)


def _ink(luminance: np.ndarray, dark: bool) -> np.ndarray:
    """How strong the ink is, float32 [H, W], 1 where it is strongest; zeros where there is none."""
    off = luminance.astype(np.float32) - np.float32(border(luminance))
    strength = np.maximum(0, off if dark else -off)
    most = strength.max()
    return strength / most if most >= _LEAST else np.zeros_like(strength)


def _box(strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of the ink's upper left corner, and past its lower right one."""
    places = np.argwhere(strength >= _INK)
    return places.min(axis=0), places.max(axis=0) + 1


def _sides(strength: np.ndarray) -> np.ndarray:
    """Height and width of the ink's box."""
    upper, lower = _box(strength)
    return lower - upper


def _centre(strength: np.ndarray) -> np.ndarray:
    """(row, column) of the centre of its mass, in pixels from the upper left corner."""
    ink = np.where(strength >= _INK, strength, 0).astype(np.float64)
    places = [
        float((ink.sum(axis=1 - axis) * (np.arange(ink.shape[axis]) + 0.5)).sum())
        for axis in (0, 1)
    ]
    return np.array(places) / ink.sum()
