"""RandAugment: a few random operations on each image, all of one magnitude.

Cubuk et al. 2020, "RandAugment: practical automated data augmentation with a reduced search space".
The operations have torchvision's ranges of magnitudes and act on uint8 images, as Pillow's do:

| operation | at magnitude m = M / 30 |
|---|---|
| identity | |
| autocontrast | each channel is stretched to 0..255 |
| equalize | each channel's histogram is equalized; not of fewer than 255 pixels |
| rotate | by 30 m degrees, about the centre |
| solarize | pixels from 255 (1 - m) on are inverted |
| color | blended with its grey version, factor 1 +- 0.9 m |
| posterize | to 8 - round(4 m) bits |
| contrast | blended with the mean of its grey version, factor 1 +- 0.9 m |
| brightness | blended with black, factor 1 +- 0.9 m |
| sharpness | blended with its smoothed version, factor 1 +- 0.9 m |
| shear_x, shear_y | by 0.3 m pixels a pixel, about the top left corner |
| translate_x, translate_y | by 150/331 m of the side, rounded down to whole pixels |

Each has either sign with probability 1/2. Geometric operations take the nearest pixel, and 128
outside of the image. This differs from the paper, whose magnitudes are 0 to 10 for the same ranges
and change most blends from 0.1 to 1.9 without a sign, in the scale of M alone: 3 M here is its M.

All operations of a batch are computed together, without a loop over the images: a lookup table of
256 values for each channel of each image, then a blend, then one gather. What an image's operation
does not need leaves it as it is. All arithmetic is of integers, or of multiples of 1/1024 that are
exact in float32, so an output row is bitwise identical in a batch of any size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

MAGNITUDES = 30  # the largest magnitude
MAX_OPERATIONS = 8
MAX_SIDE = 1024  # largest side of an image in pixels: there is a table of all pixels a map
NUMBERS = 2  # random numbers of an operation: its kind and its sign
FILL = 128  # grey outside of the image
KINDS = (
    *("identity", "autocontrast", "equalize", "solarize", "posterize", "brightness", "contrast"),
    *("color", "sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
_GEOMETRIC = KINDS.index("rotate")  # the first of the geometric kinds
_GREY = 19595 / 65536, 38470 / 65536, 7471 / 65536  # of red, green, blue, as in Pillow
_BLEND = 1024  # factors of blends are multiples of 1 / _BLEND


class RandAugment(NamedTuple):
    """Number of operations on each image, and their magnitude in 0..30."""

    operations: int = 2
    magnitude: float = 9.0


def parsed(flag: str, text: str | None) -> RandAugment:
    """Returns what `text`, OPERATIONS:MAGNITUDE, selects; the default for None.

    Args:
      flag: begins the messages of errors.
      text: strength of the transform; None: none is given.

    Raises:
      ValueError: when `text` is invalid or a number is out of range.
    """
    operations, colon, magnitude = (text if text is not None else "2").partition(":")
    try:
        found = RandAugment(int(operations), float(magnitude) if colon else 9.0)
    except ValueError:
        raise ValueError(
            f"{flag}: give randaugment:OPERATIONS:MAGNITUDE, such as randaugment:2:9"
        ) from None
    if not 1 <= found.operations <= MAX_OPERATIONS:
        raise ValueError(f"{flag}: must be 1 to {MAX_OPERATIONS} operations on an image")
    if not 0 < found.magnitude <= MAGNITUDES:
        raise ValueError(f"{flag}: the magnitude must be above 0 and at most {MAGNITUDES}")
    return found


def randaugment(images: tf.Tensor, numbers: tf.Tensor, strength: RandAugment) -> tf.Tensor:
    """Applies random operations to each image.

    Args:
      images: uint8 [rows, H, W, C], with C 3 (red, green, blue) or 1, where `color` changes
        nothing, and H and W at most `MAX_SIDE`.
      numbers: uniform random numbers in [0, 1), float32 [rows, NUMBERS * operations]: for each
        operation, its kind, KINDS[floor(u * 14)], and its sign, which is negative from 1/2 on.
      strength: number and magnitude of the operations.

    Returns:
      The images, uint8 [rows, H, W, C].
    """
    for first in range(0, NUMBERS * strength.operations, NUMBERS):
        kind = tf.floor(numbers[:, first] * len(KINDS))
        negative = tf.cast(numbers[:, first + 1] >= 0.5, tf.float32)
        images = operation(images, kind, negative, strength.magnitude / MAGNITUDES)
    return images


def operation(
    images: tf.Tensor, kind: tf.Tensor, negative: tf.Tensor, strength: float
) -> tf.Tensor:
    """Applies one operation to each image.

    Args:
      images: uint8 [rows, H, W, C].
      kind: index of each image's operation in `KINDS`, float32 [rows].
      negative: 1 where the operation has the negative sign, else 0, float32 [rows].
      strength: magnitude in 0..1.

    Returns:
      The images, uint8 [rows, H, W, C].
    """
    pixels = tf.cast(images, tf.float32)
    grey = _grey(pixels)
    factor = tf.gather(tf.constant(_factors(strength)), tf.cast(negative, tf.int32))  # [rows]

    # Kinds that change each value of a channel by itself.
    channels = images.shape[-1]
    value = tf.cast(pixels + 256 * np.arange(channels, dtype=np.float32), tf.int32)
    value = tf.reshape(value, [-1, math.prod(images.shape[1:])])
    fixed = tf.cast(2 * kind + negative, tf.int32)
    table = tf.gather(tf.constant(fixed_tables(strength)), fixed)  # [rows, 256]
    table = tf.where(_is(kind, "contrast", 2), _contrast(grey, factor), table)[:, tf.newaxis]
    counts = _histogram(value, channels)
    table = tf.where(_is(kind, "autocontrast", 3), _autocontrast(counts), table)
    table = tf.where(_is(kind, "equalize", 3), _equalize(counts), table)
    table = tf.reshape(table, [-1, channels * 256])
    changed = tf.reshape(tf.gather(table, value, batch_dims=1), [-1, *images.shape[1:]])

    # Kinds that blend an image with another one, x + w * (other - x).
    away = (1 - factor)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    if channels == 3:
        changed += tf.where(_is(kind, "color", 4), away, 0.0) * (grey - pixels)
    changed += tf.where(_is(kind, "sharpness", 4), away, 0.0) * (_smooth(pixels) - pixels)
    changed = tf.cast(tf.clip_by_value(tf.floor(changed), 0, 255), tf.uint8)

    return _mapped(changed, kind, negative, strength)


def _is(kind: tf.Tensor, name: str, rank: int) -> tf.Tensor:
    """Returns whether each image's operation is `name`: bool [rows, 1, ...] of a rank."""
    return tf.reshape(kind == KINDS.index(name), [-1] + [1] * (rank - 1))


def _factors(strength: float) -> np.ndarray:
    """Returns the factor of a blend for the positive and the negative sign, float32 [2]."""
    away = round(0.9 * strength * _BLEND) / _BLEND
    return np.array([1 + away, 1 - away], np.float32)


def fixed_tables(strength: float) -> np.ndarray:
    """Returns the new value of each value, for each kind and sign, float32 [2 * kinds, 256].

    The row is 2 * kind + (1 for the negative sign). It is the identity for all kinds that depend on
    the image.
    """
    values = np.arange(256)
    tables = np.broadcast_to(values, (len(KINDS), 2, 256)).astype(np.float32)
    tables[KINDS.index("solarize")] = np.where(values >= 255 * (1 - strength), 255 - values, values)
    tables[KINDS.index("posterize")] = values >> round(4 * strength) << round(4 * strength)
    brighter = np.floor(_factors(strength)[:, np.newaxis] * values)
    tables[KINDS.index("brightness")] = np.clip(brighter, 0, 255)
    return tables.reshape(-1, 256)


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    """Returns the grey version, rounded as Pillow does, float32 [rows, H, W, 1]."""
    if pixels.shape[-1] == 1:
        return pixels
    red, green, blue = (pixels[..., channel : channel + 1] for channel in range(3))
    return tf.floor(_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue + 0.5)


def _contrast(grey: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns the tables that blend with the rounded mean, float32 [rows, 256]."""
    count = grey.shape[1] * grey.shape[2]
    total = tf.reduce_sum(tf.cast(grey, tf.float64), [1, 2, 3])[:, tf.newaxis]
    # A quarter more, so that the last bit of the quotient does not matter.
    mean = tf.cast(tf.floor((total + (count / 2 + 0.25)) / count), tf.float32)
    factor = factor[:, tf.newaxis]
    blended = factor * np.arange(256, dtype=np.float32) + (1 - factor) * mean
    return tf.clip_by_value(tf.floor(blended), 0, 255)


def _histogram(value: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns the number of pixels of each value, float32 [rows, channels, 256].

    `value` is the value of each pixel plus 256 times its channel, int32 [rows, pixels].
    """
    size = channels * 256
    rows = tf.shape(value, tf.int64)[0]
    place = tf.cast(value, tf.int64) + tf.range(rows)[:, tf.newaxis] * size
    ones = tf.ones_like(place, tf.float32)
    counts = tf.math.unsorted_segment_sum(ones, place, rows * size)
    return tf.reshape(counts, [-1, channels, 256])


def _autocontrast(counts: tf.Tensor) -> tf.Tensor:
    """Returns the tables that stretch the values of each channel to 0..255."""
    below = tf.cumsum(counts, axis=-1)
    total = below[..., -1:]
    low = tf.reduce_sum(tf.cast(below == 0, tf.float32), -1, keepdims=True)
    high = tf.reduce_sum(tf.cast(below < total, tf.float32), -1, keepdims=True)
    values = np.arange(256, dtype=np.float32)
    # A quarter more: a quotient that is an integer is not rounded down.
    stretched = tf.floor(((values - low) * 255 + 0.25) / tf.maximum(high - low, 1))
    return tf.where(high > low, tf.clip_by_value(stretched, 0, 255), values)


def _equalize(counts: tf.Tensor) -> tf.Tensor:
    """Returns the tables that equalize the histogram of each channel, as Pillow does."""
    below = tf.cumsum(counts, axis=-1)
    total = below[..., -1:]
    last = tf.reduce_max(tf.where(below < total, 0.0, counts), -1, keepdims=True)
    step = tf.floor((total - last + 0.25) * (1 / 255))  # pixels for each new value
    new = tf.floor((below - counts + tf.floor(step / 2) + 0.25) / tf.maximum(step, 1))
    values = np.arange(256, dtype=np.float32)
    return tf.where(step > 0, tf.clip_by_value(new, 0, 255), values)


def _smooth(pixels: tf.Tensor) -> tf.Tensor:
    """Returns images filtered by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13, but for their borders."""
    _, height, width, channels = pixels.shape
    kernel = np.ones((3, 3, channels, 1), np.float32)
    kernel[1, 1] = 5
    total = tf.nn.depthwise_conv2d(pixels, kernel, [1, 1, 1, 1], "SAME")  # of integers: exact
    smooth = tf.floor((total + 6.5) * (1 / 13))  # never an integer before: rounded to nearest
    inner = np.zeros((height, width, channels), bool)
    inner[1:-1, 1:-1] = True
    return tf.where(inner, smooth, pixels)


def _mapped(images: tf.Tensor, kind: tf.Tensor, negative: tf.Tensor, strength: float) -> tf.Tensor:
    """Rotates, shears or translates the images whose kind says so; uint8 [rows, H, W, C]."""
    _, height, width, channels = images.shape
    places = tf.constant(source_pixels(height, width, strength).astype(np.float32))
    which = tf.maximum(2 * (kind - _GEOMETRIC) + negative + 1, 0)
    rows = tf.shape(images, tf.int64)[0]
    outside = rows * (height * width)
    start = tf.range(rows)[:, tf.newaxis] * (height * width)
    place = tf.cast(tf.gather(places, tf.cast(which, tf.int32)), tf.int64)
    place = tf.where(place < 0, outside, place + start)
    pixels = tf.reshape(images, [-1, channels])
    pixels = tf.concat([pixels, tf.fill([1, channels], tf.constant(FILL, tf.uint8))], 0)
    moved = tf.gather(pixels, tf.reshape(place, [-1]))
    return tf.reshape(moved, [-1, height, width, channels])


def source_pixels(height: int, width: int, strength: float) -> np.ndarray:
    """Returns the pixel of the input that each pixel shows, for each geometric kind and sign.

    Row 0 of int64 [11, height * width] is the identity, row 1 + 2 * k + (1 for the negative sign)
    is for the k-th of the geometric kinds. The elements are y * width + x, or -1 outside.
    """
    y, x = np.mgrid[:height, :width] + 0.5  # of the centres of pixels
    across, down = (math.floor(150 / 331 * strength * size) for size in (width, height))
    places = [np.arange(height * width)]
    for name in KINDS[_GEOMETRIC:]:
        for sign in (1, -1):
            turn, shear = math.radians(sign * 30 * strength), sign * 0.3 * strength
            from_y, from_x = {
                "rotate": (
                    height / 2
                    + math.cos(turn) * (y - height / 2)
                    - math.sin(turn) * (x - width / 2),
                    width / 2
                    + math.sin(turn) * (y - height / 2)
                    + math.cos(turn) * (x - width / 2),
                ),
                "shear_x": (y, x + shear * y),
                "shear_y": (y + shear * x, x),
                "translate_x": (y, x + sign * across),
                "translate_y": (y + sign * down, x),
            }[name]
            row, column = np.floor(from_y).astype(np.int64), np.floor(from_x).astype(np.int64)
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            places.append(np.where(inside, row * width + column, -1).ravel())
    return np.stack(places)
