"""Conversion of image files of any origin to network inputs that resemble a data set's images.

docs/guide/predict.md lists the steps of the conversion.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines import nests
from pipelines.images import ink
from pipelines.images.resize import Resize

if TYPE_CHECKING:
    from pipelines.source import Source

_MIN_SIDE = 4  # smallest side of an image, in pixels


class ImageSpec(NamedTuple):
    """The format of a data set's images, to which image files are converted for prediction."""

    resize: Resize  # to the network's input size, as in training
    channels: int  # 1 or 3
    stored_size: tuple[int, int] | None = None  # of the data set's images; None: they vary
    invert: bool = False  # whether every file is inverted
    background: str = (
        ""  # "dark" or "light": files with the other background are inverted; "": none is
    )
    exceptions: bool = False  # whether some of the data set's images have the other background
    layout: ink.InkLayout | None = None  # of grey stored images; None: no layout measured

    def is_own(self, image: np.ndarray) -> bool:
        """Returns whether an image has the data set's stored size or the network's input size."""
        return image.shape[:2] in (self.stored_size, self.resize.shape)


class ImageFormat(NamedTuple):
    """Background and ink layout of a data set's images, measured in a sample of them."""

    background: str = ""  # "dark" or "light": of at least nine in ten images; "": of neither
    exceptions: bool = False  # whether some images have the other background
    layout: ink.InkLayout | None = None  # of grey images of one stored size; None: none in common

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dict that `json.dumps` accepts; `from_json` reads it."""
        return {**self._asdict(), "layout": self.layout and list(self.layout)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> ImageFormat:
        """Returns the format from the dict of `to_json`; from None, the default format."""
        if content is None:
            return cls()
        layout = content["layout"]
        if layout is not None:
            background, extent, centre = layout
            layout = ink.InkLayout(background, extent, tuple(centre))
        return cls(content["background"], content["exceptions"], layout)


def converts_pictures(source: Source) -> bool:
    """Returns whether image files can be converted to a source's inputs.

    That is possible if the inputs are one uint8 image with 1 or 3 channels.
    """
    return source.has_images and source.dtype == "uint8" and source.image_shape[2] in (1, 3)


def image_format(source: Source, images: Sequence[np.ndarray]) -> ImageFormat:
    """Returns the background and ink layout of a data set's images, measured in a sample of them.

    `images` is the sample, uint8 [h, w, C] each, in the sizes in which they are stored. The ink
    layout is measured only if the images are grey and all stored in one size; otherwise it is None.
    """
    kinds = [ink.border_kind(_luminance(image)) for image in images]
    layout = None
    if source.image_shape[2] == 1 and source.stored_size is not None:
        layout = ink.layout(np.stack(images))
    return ImageFormat(ink.common_background(kinds, of=len(images)), len(set(kinds)) > 1, layout)


def image_spec(source: Source, measured: ImageFormat, invert: str) -> ImageSpec:
    """Returns the format that image files are converted to for a data set.

    Args:
      source: the data set.
      measured: result of `image_format` for the data set.
      invert: "yes": every file is inverted. "no": none is. "auto": files whose background is dark
        where that of at least nine in ten of the data set's images is light, or the reverse, are
        inverted. Files that have the size of the data set's images or of the network's input are
        inverted only if their border is plain and no sampled image has such a background.

    Raises:
      ValueError: when the data set's inputs are not one uint8 image with 1 or 3 channels.
    """
    if not converts_pictures(source):
        raise ValueError(
            f"{source.name} has inputs {nests.described(source.decoded[0])}, "
            "which pictures cannot be converted to: predict a --split"
        )
    background = measured.background if invert == "auto" else ""
    return ImageSpec(
        source.resize,
        source.image_shape[2],
        source.stored_size,
        invert == "yes",
        background,
        invert == "auto" and measured.exceptions,
        measured.layout,
    )


def read(path: str, want: ImageSpec) -> np.ndarray:
    """Reads an image file and converts it to the network's input, uint8 [height, width, C].

    Raises:
      ValueError: when the file cannot be read or is not a usable image; the message is one line
        without the file's name.
    """
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.load()
                return convert(to_channels(ImageOps.exif_transpose(picture), want.channels), want)
    except UnidentifiedImageError:
        raise ValueError("is not an image, or its format is not supported") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError("has more than 89 million pixels") from None
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise ValueError(f"cannot be read: {' '.join(why.split())}") from None
    except (SyntaxError, MemoryError, OverflowError, EOFError) as error:  # raised for damaged files
        raise ValueError(f"is damaged: {' '.join(str(error).split())}") from None


def read_array(path: str, want: ImageSpec) -> list[np.ndarray]:
    """Reads the images of a .npy file and converts each to the network's input, uint8 [h, w, C].

    The array is [H, W], [H, W, C], [n, H, W] or [n, H, W, C]; with three dimensions, it is one
    image if the last dimension is 1, 3 or 4. Integers from 0 to 255 are kept; bool, and floats from
    0 to 1, are multiplied by 255 and rounded.

    Raises:
      ValueError: when the file cannot be read, is not such an array or has an unusable image; the
        message is one line without the file's name.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"is not a NumPy array: {' '.join(str(error).split())[:80]}") from None
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3, 4) or not array.size:
        shape = getattr(array, "shape", "none")
        raise ValueError(f"has shape {shape}, expected [H, W], [H, W, C] or several of them")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4)):
        array = array[None]
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"has {array.shape[-1]} channels, and images have 1, 3 or 4")
    return [convert(_channels(image, want.channels), want) for image in _to_uint8(array)]


def convert(image: np.ndarray, want: ImageSpec) -> np.ndarray:
    """Converts an image, uint8 [H, W, want.channels], to the network's input, uint8 [h, w, C].

    As `want` specifies, inverts the image, redraws its foreground (`ink.fitted`) and resizes it.
    The foreground of an image of the data set's stored size or of the network's input size is not
    redrawn.

    Raises:
      ValueError: when the image is too small or has a single colour, unless it has the data set's
        stored size or the network's input size: it may then be one of the data set's images.
    """
    own = want.is_own(image)
    if not own and min(image.shape[:2]) < min(_MIN_SIDE, *want.resize.shape):
        raise ValueError(f"has {image.shape[1]}x{image.shape[0]} pixels, which is too small")
    if not own and image.min() == image.max():
        raise ValueError("has a single colour")
    if want.invert or (want.background and _is_foreign(image, want)):
        image = 255 - image
    if not own and want.layout and want.stored_size:
        fitted = ink.fitted(image, *want.stored_size, want.layout)
        image = image if fitted is None else fitted
    return want.resize.array(image)


def to_channels(picture: Image.Image, channels: int) -> np.ndarray:
    """Converts a Pillow image of any mode, including 16-bit modes, to uint8 [H, W, channels]."""
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture).astype(np.float64)
        if values.max() > 255 or picture.mode.startswith("I;16"):
            values = values / 257
        return _channels(np.clip(np.rint(values), 0, 255).astype(np.uint8)[..., None], channels)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        return _channels(np.asarray(picture.convert("RGBA")), channels)
    array = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return array.reshape(picture.height, picture.width, channels)


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool or np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("has floats outside 0 to 1")
        return np.rint(array * 255).astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8, copy=False)
    raise ValueError(f"holds {array.dtype} that is not from 0 to 255")


def _channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Converts an image, uint8 [H, W, C] with 1, 3 or 4 channels, to uint8 [H, W, channels].

    `channels` is 1 (luminance) or 3 (RGB). A fourth channel of the image is alpha: light images are
    blended with black, dark ones with white.
    """
    if image.shape[-1] == 4:
        opacity = image[..., 3:].astype(np.float64) / 255
        colours = image[..., :3].astype(np.float64)
        total = opacity.sum()
        light = total and (_luminance(colours) * opacity[..., 0]).sum() / total >= 128
        ground = 0.0 if light else 255.0
        image = np.rint(colours * opacity + ground * (1 - opacity)).astype(np.uint8)
    if image.shape[-1] == channels:
        return image
    if channels == 1:
        return np.rint(_luminance(image)).astype(np.uint8)[..., None]
    return np.repeat(image, 3, axis=-1)


def _luminance(image: np.ndarray) -> np.ndarray:
    """Converts grey or RGB [H, W, C] to luminance, float64 [H, W], with the weights of BT.601."""
    if image.shape[-1] == 1:
        return image[..., 0].astype(np.float64)
    return image[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def _is_foreign(image: np.ndarray, want: ImageSpec) -> bool:
    """Returns whether an image's background is dark and the data set's light, or the reverse.

    For an image of the stored size or of the network's input size, the result is True only if all
    of its border is plain, too, and none of the data set's sampled images has such a background
    (`want.exceptions` is False). `want.background` is "dark" or "light".
    """
    luminance, other = _luminance(image), "light" if want.background == "dark" else "dark"
    if not want.is_own(image):
        return ink.border_kind(luminance) == other
    return not want.exceptions and ink.plain_kind(luminance) == other
