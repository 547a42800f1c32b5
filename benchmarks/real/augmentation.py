"""Random crop of padded images, and flip, of uint8 images in a TensorFlow graph."""

from __future__ import annotations

import tensorflow as tf

PADDING = 4  # pixels on each side, zeros


def cropped(images: tf.Tensor, numbers: tf.Tensor, flipped: tf.Tensor | None = None) -> tf.Tensor:
    """Pads images by `PADDING`, and cuts out windows of their size at random places.

    Args:
      images: uint8 [rows, side, side, channels].
      numbers: uniform random numbers in [0, 1) that select row and column, float32 [rows, 2].
      flipped: whether a window is mirrored left to right, bool [rows, 1]; None: none is.

    Returns:
      uint8 [rows, side, side, channels].
    """
    side = images.shape[1]
    border = [PADDING, PADDING]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
    corner = tf.cast(numbers * (2 * PADDING + 1), tf.int32)
    places = tf.range(side)
    columns = places if flipped is None else tf.where(flipped, side - 1 - places, places)
    padded = tf.gather(padded, corner[:, :1] + places, axis=1, batch_dims=1)
    return tf.gather(padded, corner[:, 1:] + columns, axis=2, batch_dims=1)
