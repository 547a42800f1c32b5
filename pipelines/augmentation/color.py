"""Random brightness, contrast, saturation and hue of images, as torchvision's ColorJitter.

An output row is bitwise identical in a batch of any size: wherever three or more terms are summed,
the terms are multiples of a power of two, with so few bits that the sum is exact in any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

NUMBERS = 5  # random numbers of an image: a factor each, the shift of the hue, the order
_LUMA = 306 / 1024, 601 / 1024, 117 / 1024  # of red, green, blue: ITU-R BT.601
_STEP = 64.0  # pixels are whole steps of 1 / _STEP, so that 10 more bits fit into float32
_HUE_STEP = 4096.0  # hues, in sixths of the colour circle, are multiples of 1 / _HUE_STEP


class ColorJitter(NamedTuple):
    """Ranges of the random changes, as of torchvision's ColorJitter.

    Brightness, contrast and saturation are scaled by factors that are uniform in
    max(0, 1 - strength)..1 + strength. The hue is shifted by a uniform fraction of the colour
    circle in -hue..hue.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1


def parsed(flag: str, text: str | None) -> ColorJitter:
    """Returns the ranges of `text`, BRIGHTNESS:CONTRAST:SATURATION:HUE; the default for None.

    What `text` does not give is 0, which changes nothing.

    Args:
      flag: begins the messages of errors.
      text: strength of the transform; None: none is given.

    Raises:
      ValueError: when `text` is invalid or a number is out of range.
    """
    if text is None:
        return ColorJitter()
    try:
        numbers = [float(part) for part in text.split(":")]
        jitter = ColorJitter(*numbers, *[0.0] * (4 - len(numbers)))
    except (ValueError, TypeError):
        raise ValueError(
            f"{flag}: give color_jitter:BRIGHTNESS:CONTRAST:SATURATION:HUE, such as "
            "color_jitter:0.4:0.4:0.4:0.1"
        ) from None
    if not all(0 <= each <= 10 for each in jitter[:3]):
        raise ValueError(f"{flag}: brightness, contrast and saturation must be 0 to 10")
    if not 0 <= jitter.hue <= 0.5:
        raise ValueError(f"{flag}: the hue must be 0 to 0.5 of the colour circle")
    if not any(jitter):
        raise ValueError(f"{flag}: changes nothing; to go without, leave color_jitter out")
    return jitter


def color_jitter(images: tf.Tensor, numbers: tf.Tensor, jitter: ColorJitter) -> tf.Tensor:
    """Changes brightness, contrast and saturation in a random order, and then the hue.

    Each of the three blends the image with another one, factor * image + (1 - factor) * other, and
    limits it to 0..255: brightness with black, contrast with the mean of its grey version,
    saturation with its grey version. In torchvision, the hue too has a random place in the order,
    and each result is rounded to integers; here, to multiples of 1/64.

    Args:
      images: uint8, or float32 in 0..255, [rows, H, W, C] with C 3 (red, green, blue) or 1, where
        saturation and hue change nothing.
      numbers: uniform random numbers in [0, 1), float32 [rows, NUMBERS].
      jitter: ranges of the changes.

    Returns:
      The images, float32 [rows, H, W, C] in 0..255.
    """
    height, width, channels = images.shape[1:]
    # Whole channels, [rows, pixels]: an operation on the last axis, of three, takes twice as long.
    flat = tf.transpose(tf.reshape(images, [-1, height * width, channels]), [2, 0, 1])
    planes = [tf.round(tf.cast(each, tf.float32) * _STEP) for each in tf.unstack(flat)]
    colored = channels == 3
    kinds = [kind for kind in range(3) if jitter[kind] and (colored or kind < 2)]
    orders = np.array(list(itertools.permutations(kinds)), np.float32)
    order = tf.cast(tf.floor(numbers[:, 4] * len(orders)), tf.int32)
    order = tf.gather(tf.constant(orders), order)  # float32 [rows, kinds]
    low = np.array([max(0.0, 1 - strength) for strength in jitter[:3]], np.float32)
    high = np.array([1 + strength for strength in jitter[:3]], np.float32)
    factors = low + numbers[:, :3] * (high - low)
    for place in range(len(kinds)):
        kind = order[:, place, tf.newaxis]
        factor = tf.gather(factors, tf.cast(order[:, place], tf.int32), batch_dims=1)
        factor = factor[:, tf.newaxis]
        other = tf.zeros([], tf.float32)
        if kinds != [0]:
            grey = _luma(planes)
            other = tf.where(kind == 1, _mean(grey), tf.where(kind == 2, grey, 0.0))
            other = (1 - factor) * other
        planes = [_on_grid(factor * plane + other) for plane in planes]
    if colored and jitter.hue:
        planes = shifted_hue(planes, 6 * jitter.hue * (2 * numbers[:, 3] - 1))
    flat = tf.transpose(tf.stack(planes), [1, 2, 0]) * (1 / _STEP)
    return tf.reshape(flat, [-1, height, width, channels])


def _on_grid(plane: tf.Tensor) -> tf.Tensor:
    """Returns a channel in whole steps, from 0 to that of 255."""
    return tf.round(tf.clip_by_value(plane, 0, 255 * _STEP))


def _luma(planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the grey version of one or three channels: float32 [rows, pixels], in steps."""
    if len(planes) == 1:
        return planes[0]
    red, green, blue = planes
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _mean(grey: tf.Tensor) -> tf.Tensor:
    """Returns the mean of each image of one channel in whole steps: float32 [rows, 1].

    The pixels are multiples of 1/1024 of a step, so that their sum is exact in float64.
    """
    total = tf.reduce_sum(tf.cast(grey, tf.float64), 1, keepdims=True)
    return tf.round(tf.cast(total * (1 / grey.shape[1]), tf.float32))


def shifted_hue(planes: Sequence[tf.Tensor], shift: tf.Tensor) -> list[tf.Tensor]:
    """Shifts the hue of images, in the model of hue, saturation and value.

    Args:
      planes: red, green and blue, float32 [rows, pixels], of whole numbers.
      shift: shift of each image in sixths of the colour circle, -3..3, float32 [rows].

    Returns:
      Channels like `planes`, with the same largest and smallest value of each pixel.
    """
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    per = 1 / tf.maximum(chroma, 1.0)  # of a grey pixel, all differences are 0
    hue = tf.where(
        value == red,
        (green - blue) * per,
        tf.where(value == green, (blue - red) * per + 2, (red - green) * per + 4),
    )
    hue = tf.round(hue * _HUE_STEP) * (1 / _HUE_STEP)
    shift = tf.round(shift * _HUE_STEP) * (1 / _HUE_STEP)
    hue = hue + shift[:, tf.newaxis]
    channels = []
    for start in (5.0, 3.0, 1.0):
        place = hue + start
        place = place - 6 * tf.floor(place * (1 / 6))
        below = tf.clip_by_value(tf.minimum(place, 4 - place), 0, 1)
        channels.append(value - chroma * below)
    return channels
