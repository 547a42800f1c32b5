"""Resizing of images, the same in training, evaluation, prediction and the exported model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

FITS = ("pad", "crop", "stretch")


@dataclass(frozen=True)
class Resize:
    """Function that resizes images with a bilinear filter, in the graph.

    An image that has the target size is returned unchanged. Memory is proportional to the larger of
    image and target, whatever their aspect ratios.

    Args:
      shape: target height and width.
      fit: how images of another aspect ratio are resized. pad: the whole image is resized to the
        largest size that fits (each side at least 1) and centred; the rest is filled with the
        median colour of the image's border. crop: the centre with the target's aspect ratio is
        resized. stretch: the aspect ratio changes.
      antialias: whether the filter is widened to average all pixels where an image is downsampled.
      nearest: whether each output pixel is a copy of the nearest input pixel, without a filter, as
        for masks of class labels; the padding is then 0.

    Raises:
      ValueError: when `fit` is unknown.
    """

    shape: tuple[int, int]
    fit: str = "pad"
    antialias: bool = True
    nearest: bool = False

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"fit is {self.fit!r}; choose one of {', '.join(FITS)}")

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Resizes [H, W, C] or [n >= 1, H, W, C], uint8 (rounded) or float32, to `self.shape`.

        H, W and C, at least 1, may be unknown at tracing. Returns images of the same rank and
        dtype.
        """
        if images.shape.rank == 3:
            return self(images[tf.newaxis])[0]
        if images.shape[1:3].as_list() != list(self.shape):
            resize = {"pad": self._pad, "crop": self._crop, "stretch": self._filter}[self.fit]
            images = resize(images)
        return tf.ensure_shape(images, [None, *self.shape, images.shape[-1]])

    def array(self, image: np.ndarray) -> np.ndarray:
        """Resizes one NumPy image, uint8 or float32 [H, W, C]; one trace serves all sizes.

        An image that has the target size is returned itself, not a copy.
        """
        if image.shape[:2] == self.shape:
            return image
        with tf.device("CPU:0"):
            return _traced(self, image.dtype.name)(tf.constant(image)).numpy()

    @property
    def _target(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Target (height, width), int64 [] each."""
        return tf.unstack(tf.constant(self.shape, tf.int64))

    def _pad(self, images: tf.Tensor) -> tf.Tensor:
        height, width = self._target
        rows, columns, taller = self._proportions(images)
        size = (
            tf.where(taller, height, tf.maximum(_quotient(rows * width, columns), 1)),
            tf.where(taller, tf.maximum(_quotient(columns * height, rows), 1), width),
        )
        resized = self._filter(images, size)
        free = tf.stack([0, height - size[0], width - size[1], 0])
        paddings = tf.stack([free // 2, free - free // 2], axis=1)
        inside = tf.pad(tf.ones_like(resized[:1, :, :, :1], tf.bool), paddings)
        colour = tf.zeros([], images.dtype) if self.nearest else border_colour(images)
        return tf.where(inside, tf.pad(resized, paddings), colour)

    def _crop(self, images: tf.Tensor) -> tf.Tensor:
        height, width = self._target
        rows, columns, taller = self._proportions(images)
        kept_rows = tf.where(taller, tf.maximum(_quotient(columns * height, width), 1), rows)
        kept_columns = tf.where(taller, columns, tf.maximum(_quotient(rows * width, height), 1))
        top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
        centre = images[:, top : top + kept_rows, left : left + kept_columns]
        return self._filter(centre)

    def _proportions(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns H, W (int64 []) and whether H / W is at least the target's ratio (bool [])."""
        height, width = self._target
        rows, columns = tf.unstack(tf.shape(images, tf.int64)[1:3])
        return rows, columns, rows * width >= columns * height

    def _filter(self, images: tf.Tensor, size: Sequence[tf.Tensor] = ()) -> tf.Tensor:
        """Stretches images to `size` (height, width; int64) or else `self.shape`; rounds uint8."""
        size = size or self._target
        target = tf.cast(tf.stack(size), tf.int32)

        def resized() -> tf.Tensor:
            result = images
            if self.nearest:
                return tf.image.resize(images, target, method="nearest")
            if self.antialias:
                # The side that shrinks more comes first. TensorFlow resizes rows before columns; it
                # would copy an image of one long row into each row of the target.
                rows, columns, taller = self._proportions(images)
                halfway = tf.where(taller, (size[0], columns), (rows, size[1]))
                result = tf.image.resize(result, tf.cast(halfway, tf.int32), antialias=True)
            result = tf.image.resize(result, target, antialias=self.antialias)
            return tf.cast(tf.round(result), images.dtype) if images.dtype == tf.uint8 else result

        # The filter would change infinite values and take time.
        same = tf.reduce_all(tf.equal(tf.shape(images)[1:3], target))
        return tf.cond(same, lambda: tf.identity(images), resized)


def border_colour(images: tf.Tensor) -> tf.Tensor:
    """Returns the median of the outermost pixels of each image by channel.

    For uint8, it is rounded half to even. Maps [n, H, W, C] of uint8 or float32 to [n, 1, 1, C] of
    the same dtype.
    """
    sides = (  # each pixel once, even where there is one row or column
        images[:, :1],
        images[:, 1:][:, -1:],
        tf.transpose(images[:, 1:-1, :1], [0, 2, 1, 3]),
        tf.transpose(images[:, 1:-1, 1:][:, :, -1:], [0, 2, 1, 3]),
    )
    in_rows = [tf.reshape(side, [tf.shape(side)[0], -1, tf.shape(side)[3]]) for side in sides]
    ordered = tf.sort(tf.cast(tf.concat(in_rows, axis=1), tf.float32), axis=1)
    count = tf.shape(ordered)[1]
    median = ordered[:, (count - 1) // 2] / 2 + ordered[:, count // 2] / 2
    if images.dtype == tf.uint8:
        median = tf.round(median)
    return tf.cast(median, images.dtype)[:, tf.newaxis, tf.newaxis]


def _quotient(numerator: tf.Tensor, denominator: tf.Tensor | int) -> tf.Tensor:
    """Returns the quotient of positive integers, rounded half up."""
    return (2 * numerator + denominator) // (2 * denominator)


@functools.lru_cache(maxsize=8)
def _traced(resize: Resize, dtype: str) -> tf.types.experimental.PolymorphicFunction:
    image = tf.TensorSpec([None, None, None], dtype)
    return tf.function(resize.__call__, input_signature=[image], autograph=False)
