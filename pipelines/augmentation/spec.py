"""Parses the value of `--augment`, and checks that its transforms apply to a source's examples."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from pipelines import nests
from pipelines.augmentation import color, mixing, moves, randaugment, registry, resized_crop
from pipelines.augmentation.augment import Augmentation
from pipelines.augmentation.checks import choices, number_of
from pipelines.augmentation.moves import FLIPS
from pipelines.augmentation.warp import MAX_SIDE, NUMBERS

if TYPE_CHECKING:
    from pipelines.source import Source

MOVING = ("crop", "flip", "randaugment", *NUMBERS)  # transforms that move pixels
OF_UINT8 = ("randaugment", *NUMBERS, "color_jitter")  # transforms of uint8 images alone
OF_COLORS = ("randaugment", "color_jitter")  # transforms of images of 1 or 3 channels
# Parsers of the strengths that are not one number: (flag, text or None) -> strength
_PARSERS = {
    "resized_crop": resized_crop.parsed,
    "randaugment": randaugment.parsed,
    "color_jitter": color.parsed,
}


def augmentation_of(spec: str, source: Source) -> Augmentation | None:
    """Returns the augmentation of a source's batches that `--augment` selects.

    Returns None if `spec`, the value of `--augment`, selects no transform, or only resized_crop,
    which the source applies when it decodes examples. `source` must be the result of `with_crop`
    for the same `spec`.

    Raises:
      ValueError: as `parse_augmentation`; when a transform cannot apply to the source's examples.
    """
    parsed = _of_source(spec, source)
    assert parsed is None or parsed.crop == source.crop, "a source is to be opened by `with_crop`"
    return parsed if parsed and parsed.strengths else None


def with_crop(source: Source, spec: str) -> Source:
    """Returns the source with the random crop at decoding that `--augment` selects.

    The result is a copy of the source with another `crop`, which is None if `spec`, the value of
    `--augment`, does not select resized_crop. If `spec` is empty, the source itself is returned.

    Raises:
      ValueError: as `augmentation_of`.
    """
    parsed = _of_source(spec, source)
    return dataclasses.replace(source, crop=parsed.crop) if parsed else source


def _of_source(spec: str, source: Source) -> Augmentation | None:
    """Returns the transforms and the crop that `--augment` selects; None if it selects none.

    Raises:
      ValueError: as `augmentation_of`.
    """
    shape = source.image_shape if source.has_images else None
    parsed = parse_augmentation(spec, shape, source.dtype if shape else "")
    if parsed is None:
        return None
    if parsed.mixes and not source.has_labels:
        mixes = next(name for name in mixing.MIXING if name in parsed.strengths)
        raise ValueError(
            f"--augment={spec}: {mixes} mixes class labels, and {source.name} has none"
        )
    moving = [name for name in parsed.strengths if name in MOVING]
    moving += ["resized_crop"] * (parsed.crop is not None)
    if moving and any(leaf.shape.rank > 1 for leaf in tf.nest.flatten(source.targets)):
        raise ValueError(
            f"--augment={spec}: {moving[0]} moves the pixels of images and not the targets, "
            f"{nests.described(source.targets)}: register a function of both with tl.augment"
        )
    images = [name for name in parsed.strengths if name not in registry.pair_transforms]
    if images and source.dtype == "uint8" and "" not in source.preprocess.scales:
        raise ValueError(
            f"--augment={spec}: {images[0]} gives pixels that are no integers: give --scale=unit "
            "or standardize"
        )
    return parsed


def parse_augmentation(
    spec: str, image_shape: tuple[int, int, int] | None, dtype: str = "uint8"
) -> Augmentation | None:
    """Converts the value of `--augment` to an `Augmentation`; None if the value is empty.

    Besides the transforms that `register` and `register_pair` add, there are these, with the
    default strengths for images of 28 x 28 (those in pixels scale with the shorter side):

      crop: pixels of padding at each side, and after another colon what they are, reflect (default)
        or zeros; 4 (an eighth of the side). See `Crop`.
      flip: horizontal (default), vertical or both; each with probability 1/2. alternating:
        horizontal in every other epoch, of half of the images in the first.
      randaugment: operations:magnitude, number of operations on an image, and their magnitude in
        0..30; 2:9. See `randaugment`.
      shift: maximum along each axis in pixels, whole or fractional; 2.
      rotation: maximum in either direction in degrees; 10.
      zoom: scales by a factor between 1 - strength and 1 + strength; 0.1.
      shear: maximum horizontal shift in pixels per pixel above or below the centre; 0.1.
      elastic: maximum distortion along each axis in pixels; 3.
      color_jitter: brightness:contrast:saturation:hue, ranges of the changes; 0.4:0.4:0.4:0.1. See
        `ColorJitter`.
      cutout: side of the square that is set to zero, in whole pixels; 8.
      mixup: alpha of the Beta distribution; a larger alpha mixes more; 0.2.
      cutmix: alpha of the Beta distribution; 1. See `box`.
      resized_crop: smallest area of the crop, as a fraction of the image's area, and after another
        colon the largest ratio of the crop's sides; 0.08:1.3333. See `ResizedCrop`.

    Args:
      spec: `name` or `name:strength` of each transform, separated by commas, in any order.
      image_shape: (height, width, channels) of the images; None: the inputs are not images, so only
        transforms that `register_pair` added apply.
      dtype: dtype of the images; randaugment, shift, rotation, zoom, shear, elastic and
        color_jitter require "uint8".

    Raises:
      ValueError: when `spec` is invalid or not possible for these images; says what is allowed.
    """
    strengths: dict[str, Any] = {}
    for item in spec.split(",") if spec.strip() else ():
        name, colon, strength = (part.strip() for part in item.partition(":"))
        flag = f"--augment={item.strip()}"
        if name not in registry.names():
            raise ValueError(f"{flag}: the transforms are {choices(name, registry.names())}")
        if name in strengths:
            raise ValueError(f"{flag}: {name} is listed twice")
        strengths[name] = _strength(flag, name, strength if colon else None, image_shape)
    if not strengths:
        return None
    crop = strengths.pop("resized_crop", None)
    if image_shape is None:
        foreign = ["resized_crop"] * (crop is not None)
        if foreign := [
            *foreign,
            *(name for name in strengths if name not in registry.pair_transforms),
        ]:
            raise ValueError(
                f"--augment={spec}: {foreign[0]} is of images, and the inputs are no images"
            )
        return Augmentation(strengths)
    if whole := [name for name in strengths if name in OF_UINT8 and dtype != "uint8"]:
        raise ValueError(f"--augment={spec}: {whole[0]} is of uint8 images, and these are {dtype}")
    height, width, channels = image_shape
    colored = [name for name in strengths if name in OF_COLORS]
    if colored and channels not in (1, 3):
        raise ValueError(
            f"--augment={spec}: {colored[0]} is of images of 1 or 3 channels, and these have "
            f"{channels}"
        )
    if "randaugment" in strengths and max(height, width) > randaugment.MAX_SIDE:
        raise ValueError(
            f"--augment={spec}: images are {height} x {width} pixels; for randaugment, at most "
            f"{randaugment.MAX_SIDE} a side: give --image_size"
        )
    if max(height, width) > MAX_SIDE:
        raise ValueError(
            f"--augment={spec}: images are {height} x {width} pixels; at most {MAX_SIDE} a side"
        )
    return Augmentation(strengths, crop)


def _strength(
    flag: str, name: str, text: str | None, image_shape: tuple[int, int, int] | None
) -> Any:
    if name in _PARSERS:
        return _PARSERS[name](flag, text)
    if name == "flip":
        text = "horizontal" if text is None else text
        if text not in FLIPS:
            raise ValueError(f"{flag}: flips are {choices(text, FLIPS)}")
        return text
    side = min(image_shape[:2]) if image_shape else 14
    if name == "crop":
        return moves.parsed_crop(flag, text, side)
    pixels = f"pixels, the image's shorter side being {side}"
    default, maximum, allowed = {
        "shift": (side / 14, math.nextafter(side, 0), f"below {side} {pixels}"),
        "rotation": (10.0, 180.0, "at most 180 degrees"),
        "zoom": (0.1, 0.99, "at most 0.99"),
        "shear": (0.1, 1.0, "at most 1"),
        "elastic": (side * 3 / 28, side / 4, f"at most {side / 4:g} {pixels}"),
        "cutout": (max(1, round(side * 2 / 7)), side - 1, f"at most {side - 1} {pixels}"),
        "mixup": (0.2, 100.0, "at most 100"),
        "cutmix": (1.0, 100.0, "at most 100"),
        **{
            registered: (each.default, each.maximum, f"at most {each.maximum:g}")
            for registered, each in (registry.image_transforms | registry.pair_transforms).items()
        },
    }[name]
    if name in registry.pair_transforms and not maximum:
        if text is not None:
            raise ValueError(f"{flag}: {name} takes no strength; give {name}")
        return default
    number = number_of(flag, name, text, default)
    if not math.isfinite(number):
        raise ValueError(f"{flag}: must be a finite number")
    if number <= 0:
        raise ValueError(f"{flag}: must be above 0; to go without, leave {name} out")
    if number > maximum:
        raise ValueError(f"{flag}: must be {allowed}")
    if name == "cutout" and number != int(number):
        raise ValueError(f"{flag}: must be a whole number of pixels")
    return int(number) if name == "cutout" else number
