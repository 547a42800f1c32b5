"""Mean and variance of each channel over the valid rows of the micro-batch of one replica.

No statistic is a small difference of large numbers, whatever the mean is. Sums are float32, of one
row first and then of all rows: the rounding errors of a sum grow with its number of terms.

TensorFlow's kernel of batch norm (FusedBatchNormV3) does not replace this for float32. oneDNN's
adds up to 100,000 numbers one after the other, and at a mean of 10,000 and a deviation of 1 is
wrong by 0.06 to 4 deviations; XLA computes the variance as mean(x^2) - mean(x)^2. For 16-bit
inputs, it is used: their own rounding is larger than those errors, and it reads them as they are.
"""

from __future__ import annotations

import tensorflow as tf

from engine.models.channel_passes import ValidRows, normalize_by_moments

# If the squared mean of a channel is at most this many times its variance plus epsilon, one pass
# computes the variance, with at most 17 times the relative rounding error of a sum of squares. In
# the layers of a network in training, means are hardly ever 4 standard deviations from zero.
_FAR = 16.0


def moments(
    x: tf.Tensor, rows: ValidRows, epsilon: float, kernels: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the mean and the biased variance of the valid rows, float32 [channels].

    Without a valid row, both are 0. Computes no gradient: see `moments_gradient`.

    Args:
      x: float32, bfloat16 or float16 [rows, ..., channels].
      rows: the valid rows of `x`.
      epsilon: number that is added to the variance where it is used.
      kernels: result of `uses_kernels`.
    """
    if not kernels:
        return _around_first_row(x, rows)
    if x.dtype != tf.float32:
        whole = rows.all_valid()
        if whole is True:
            return _of_kernel(x, rows)
        return tf.cond(whole, lambda: _of_kernel(x, rows), lambda: _of_valid_rows(x, rows))
    mean, variance = _in_one_pass(x, rows)
    # Also if the squares overflow, so that the variance is nan.
    near = tf.reduce_all(tf.square(mean) <= _FAR * (variance + epsilon))

    def again() -> tuple[tf.Tensor, tf.Tensor]:
        offset, variance = _in_one_pass(x - mean, rows)
        return mean + offset, variance

    return tf.cond(near, lambda: (mean, variance), again)


def _in_one_pass(x: tf.Tensor, rows: ValidRows) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and biased variance of float32 inputs whose mean is near zero."""
    axes = list(range(1, x.shape.rank - 1))
    sums = tf.reduce_sum(x, axes) if axes else x
    # Squares and adds in one pass, without an array of the squares.
    squares = tf.square(tf.math.reduce_euclidean_norm(x, axes) if axes else x)
    portion = 1 / tf.maximum(rows.count, 1.0)
    mean = tf.reduce_sum(rows.weighted(sums), 0) * portion
    mean_square = tf.reduce_sum(rows.weighted(squares), 0) * portion
    return mean, tf.maximum(mean_square - tf.square(mean), 0.0)


def _around_first_row(x: tf.Tensor, rows: ValidRows) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and biased variance from sums over the distances from the first valid row.

    The mean of one of n rows is at most sqrt(n) standard deviations from the mean of all: the
    variance loses a factor n of its precision at most.
    """
    axes = list(range(1, x.shape.rank - 1))
    # A slice, which XLA reads in place.
    first = 0 if rows.mask is None else tf.argmax(rows.mask)
    first = tf.cast(tf.gather(x, first), tf.float32)
    shift = tf.reduce_mean(first, [axis - 1 for axis in axes]) if axes else first
    centred = tf.cast(x, tf.float32) - shift
    sums = tf.reduce_sum(centred, axes)
    squares = tf.reduce_sum(tf.square(centred), axes)
    count = tf.maximum(rows.count, 1.0)
    offset = tf.reduce_sum(rows.weighted(sums), 0) / count
    mean_square = tf.reduce_sum(rows.weighted(squares), 0) / count
    variance = tf.maximum(mean_square - tf.square(offset), 0.0)
    return tf.where(rows.count > 0, shift + offset, 0.0), variance


def _of_kernel(x: tf.Tensor, rows: ValidRows) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and biased variance by TensorFlow's kernel of batch norm; all rows are valid."""
    channels = x.shape[-1:]
    _, mean, variance = normalize_by_moments(x, rows, tf.ones(channels), tf.zeros(channels), 1e-3)
    return mean, variance


def _of_valid_rows(x: tf.Tensor, rows: ValidRows) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns `_of_kernel` of the valid rows, which are copied in the dtype of `x`, of 16 bits.

    Without a valid row, both are 0.
    """
    assert rows.mask is not None, "without a mask, all rows are valid"
    mean, variance = _of_kernel(tf.boolean_mask(x, rows.mask > 0), rows)
    some = rows.count > 0
    return tf.where(some, mean, 0.0), tf.where(some, variance, 0.0)
