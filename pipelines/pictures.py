"""Pictures from anywhere -> images as a data set has them.

A picture is decoded (its first frame, turned as its EXIF orientation says), brought to 8 bits a
channel (16 bits divided by 257), laid on a plain ground where it is transparent (black under light
ink, white under dark ink), made grey (0.299 R + 0.587 G + 0.114 B, ITU-R BT.601) or RGB as the data
set is, and inverted where that is asked for. A picture of the data set's stored size then is as one
of its images. Where the data set is ink on a plain ground (`ink`), the ink of any other is laid out
at the stored size as it is there. Last, `resize` makes it one of the network's size, as it does for
training.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines import ink
from pipelines.resize import Resize
from pipelines.source import Source

_LEAST = 4  # pixels a side: less is no picture


class Wanted(NamedTuple):
    """What pictures are made into.

    resize: to the network's size, as in training.
    channels: 1 or 3.
    stored_size: height and width of the data set's images as they are stored; None: they vary.
    invert: whether dark becomes light.
    ground: of the data set, "dark" or "light": a picture on the other one is inverted; "": any.
    exceptions: whether some of the data set's images have the other ground.
    layout: of the data set's ink at its stored size; None: it is not ink on a plain ground.
    """

    resize: Resize
    channels: int
    stored_size: tuple[int, int] | None = None
    invert: bool = False
    ground: str = ""
    exceptions: bool = False
    layout: ink.Layout | None = None

    def is_own(self, image: np.ndarray) -> bool:
        """Whether an image has the size of the data set's images, stored or resized."""
        return image.shape[:2] in (self.stored_size, self.resize.shape)


def wanted(source: Source, images: Sequence[np.ndarray], invert: str) -> Wanted:
    """What a data set wants of pictures.

    Args:
      source: the data set.
      images: some of it, of their stored sizes, uint8 [h, w, C] each.
      invert: "no", "yes", or "auto": where the ground is not as the data set's images have it,
        which must be one, dark or light, in nine of ten of them.

    Raises:
      ValueError: where no picture can be made into its images.
    """
    if source.dtype != "uint8" or source.image_shape[2] not in (1, 3):
        raise ValueError(
            f"{source.name} has images {'x'.join(map(str, source.image_shape))} {source.dtype}, "
            "which no picture can be made into: predict a --split"
        )
    channels, ground, exceptions, layout = source.image_shape[2], "", False, None
    if invert == "auto":
        borders = [ink.border(_luminance(image)) for image in images]
        ground = ink.ground(borders, of=len(images))
        exceptions = len({border < 128 for border in borders}) > 1
    if channels == 1 and source.stored_size is not None:
        layout = ink.layout(np.stack(images))
    return Wanted(
        source.resize, channels, source.stored_size, invert == "yes", ground, exceptions, layout
    )


def read(path: str, want: Wanted) -> np.ndarray:
    """The image of a picture file, uint8 [height, width, C] of the network's size.

    Raises:
      ValueError: when it is none, in one line that does not name it.
    """
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.load()
                return convert(_array(ImageOps.exif_transpose(picture), want.channels), want)
    except UnidentifiedImageError:
        raise ValueError("is no picture, or of a kind that is not known") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError("has more than 89 million pixels") from None
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise ValueError(f"cannot be read: {' '.join(why.split())}") from None
    except (SyntaxError, MemoryError, OverflowError, EOFError) as error:  # of damaged files
        raise ValueError(f"is damaged: {' '.join(str(error).split())}") from None


def read_array(path: str, want: Wanted) -> list[np.ndarray]:
    """The images of a .npy file: [H, W], [H, W, C], [n, H, W] or [n, H, W, C].

    uint8 and bool are taken as they are, floats from 0 to 1 times 255. Three dimensions are one
    image where the last is 1, 3 or 4.

    Raises:
      ValueError: when it holds no images, in one line that does not name it.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"is no NumPy array: {' '.join(str(error).split())[:80]}") from None
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3, 4) or not array.size:
        shape = getattr(array, "shape", "none")
        raise ValueError(f"has shape {shape}, and images are [H, W], [H, W, C] or several of them")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4)):
        array = array[None]
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"has {array.shape[-1]} channels, and images have 1, 3 or 4")
    return [convert(_channels(image, want.channels), want) for image in _to_uint8(array)]


def convert(image: np.ndarray, want: Wanted) -> np.ndarray:
    """An image of any size as the network takes them.

    Args:
      image: uint8 [H, W, C], C as it is wanted.
      want: what it is made into.

    Returns:
      uint8 [height, width, C] of the network's size.

    Raises:
      ValueError: when it is too small, or of one colour alone, and has not the size of the data
        set's images: any of that size may be one of them.
    """
    own = want.is_own(image)
    if not own and min(image.shape[:2]) < min(_LEAST, *want.resize.shape):
        raise ValueError(f"has {image.shape[1]}x{image.shape[0]} pixels, too few to see anything")
    if not own and image.min() == image.max():
        raise ValueError("is of one colour alone: there is nothing to see")
    if want.invert or (want.ground and _is_foreign(image, want)):
        image = 255 - image
    if not own and want.layout and want.stored_size:
        fitted = ink.fitted(image, *want.stored_size, want.layout)
        image = image if fitted is None else fitted
    return want.resize.array(image)


def _array(picture: Image.Image, channels: int) -> np.ndarray:
    """A decoded picture as uint8 [H, W, channels]."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture).astype(np.float64)
        if values.max() > 255 or picture.mode.startswith("I;16"):
            values = values / 257
        return _channels(np.clip(np.rint(values), 0, 255).astype(np.uint8)[..., None], channels)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        return _channels(np.asarray(picture.convert("RGBA")), channels)
    return np.asarray(picture.convert("L" if channels == 1 else "RGB")).reshape(
        picture.height, picture.width, channels
    )


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("holds floats that are not from 0 to 1")
        return np.rint(array * 255).astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    raise ValueError(f"holds {array.dtype} that is not from 0 to 255")


def _channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [H, W, 1, 3 or 4] -> [H, W, channels]; a fourth channel is opacity."""
    if image.shape[-1] == 4:
        opacity = image[..., 3:].astype(np.float64) / 255
        colours = image[..., :3].astype(np.float64)
        covered = opacity.sum()
        light = covered and (_luminance(colours) * opacity[..., 0]).sum() / covered >= 128
        ground = 0.0 if light else 255.0
        image = np.rint(colours * opacity + ground * (1 - opacity)).astype(np.uint8)
    if image.shape[-1] == channels:
        return image
    if channels == 1:
        return np.rint(_luminance(image)).astype(np.uint8)[..., None]
    return np.repeat(image, 3, axis=-1)


def _luminance(image: np.ndarray) -> np.ndarray:
    """[H, W, C] -> float64 [H, W]."""
    if image.shape[-1] == 1:
        return image[..., 0].astype(np.float64)
    return image[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def _is_foreign(image: np.ndarray, want: Wanted) -> bool:
    """Whether an image has the ground that the data set's images have not.

    One of the data set's own size may be a rare one of its images, whose border is of the other
    kind in its median: it is foreign only where the whole border is plain, and no image is known
    whose border is of that kind.
    """
    luminance, other = _luminance(image), "light" if want.ground == "dark" else "dark"
    if not want.is_own(image):
        return ink.border_kind(luminance) == other
    return not want.exceptions and ink.plain_kind(luminance) == other
