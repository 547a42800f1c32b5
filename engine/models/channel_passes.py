"""Passes over activations that batch norm consists of, forward and backward, without gradients.

On a CPU, kernels of TensorFlow do most in one pass, and read and write 16-bit activations as they
are. On a GPU and under XLA, which fuses them, they are elementwise operations in float32.

Shapes: activations, `x` and the like, are float32, bfloat16 or float16 [rows, ..., channels]; mean,
variance, scale, offset and other values of each channel are float32 [channels]. `epsilon` is added
to the variance. `kernels` is the result of `uses_kernels`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

NORMALIZED_DTYPES = (tf.float32, tf.bfloat16, tf.float16)  # of activations; cast others to float32


class ValidRows(NamedTuple):
    """The valid rows of a micro-batch."""

    mask: tf.Tensor | None  # float32 [rows]: 1 for a valid row, 0 for padding; None: all are valid
    count: tf.Tensor  # float32 []: number of valid elements of a channel, on this replica

    def all_valid(self) -> tf.Tensor | bool:
        """Returns whether no row is padding, bool []."""
        return True if self.mask is None else tf.reduce_min(self.mask) > 0

    def weighted(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns a tensor, [rows, ...], with zeros in place of the rows that are padding."""
        if self.mask is None:
            return tensor
        valid = tf.reshape(self.mask > 0, [-1] + [1] * (tensor.shape.rank - 1))
        return tf.where(valid, tensor, tf.zeros([], tensor.dtype))


def valid_rows(x: tf.Tensor, mask: tf.Tensor | None) -> ValidRows:
    """Returns the `ValidRows` of `x`, [rows, ..., channels], with `mask` as in `ValidRows`."""
    rows = tf.cast(tf.shape(x)[0], tf.float32) if mask is None else tf.reduce_sum(mask)
    positions = x.shape[1:-1].num_elements()
    if positions is None:
        positions = tf.cast(tf.reduce_prod(tf.shape(x)[1:-1]), tf.float32)
    return ValidRows(mask, rows * positions)


def uses_kernels(compiled: bool) -> bool:
    """Returns whether TensorFlow's kernels for CPUs compute: there is no GPU, and no XLA.

    The kernels are chosen by values on the device, for which a host that drives a GPU would wait.

    Args:
      compiled: whether XLA compiles the forward pass.
    """
    return not compiled and not tf.config.list_logical_devices("GPU")


def normalize(
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float,
    kernels: bool,
) -> tf.Tensor:
    """Returns (x - mean) * scale / sqrt(variance + epsilon) + offset, of the dtype of `x`.

    The mean is subtracted first: the products would round a large mean once more.
    """
    if not kernels:
        centred = tf.cast(x, tf.float32) - mean
        return tf.cast(centred * (scale * tf.math.rsqrt(variance + epsilon)) + offset, x.dtype)
    result = tf.raw_ops.FusedBatchNormV3(
        x=_of_rank_4(x),
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=False,
    )
    return _of_shape(result.y, x)


def normalize_by_moments(
    x: tf.Tensor, rows: ValidRows, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns `normalize` by mean and variance of `x`, and these, by one kernel.

    All rows are valid; the variance is the biased one.
    """
    result = tf.raw_ops.FusedBatchNormV3(
        x=_of_rank_4(x),
        scale=scale,
        offset=offset,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        exponential_avg_factor=1.0,
        is_training=True,
    )
    # The kernel returns the unbiased variance; of one element, 0.
    biased = tf.maximum(rows.count - 1, 0.0) / tf.maximum(rows.count, 1.0)
    return _of_shape(result.y, x), result.batch_mean, result.batch_variance * biased


def normalize_gradient(
    upstream: tf.Tensor,
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    scale: tf.Tensor,
    epsilon: float,
    kernels: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the gradients of x, scale and offset in `normalize`; mean and variance are constants.

    `upstream`, the gradient of the result of `normalize`, is of the dtype of `x`.
    """
    if kernels:
        return _kernel_gradient(upstream, x, mean, variance, scale, epsilon, training=False)
    axes = list(range(x.shape.rank - 1))
    gradient = tf.cast(upstream, tf.float32)
    factor = tf.math.rsqrt(variance + epsilon)
    products = gradient * (tf.cast(x, tf.float32) - mean)
    of_scale = tf.reduce_sum(products, axes) * factor
    return tf.cast(gradient * (scale * factor), x.dtype), of_scale, tf.reduce_sum(gradient, axes)


def normalize_by_moments_gradient(
    upstream: tf.Tensor,
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    scale: tf.Tensor,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the gradients of x, scale and offset in `normalize_by_moments`, by one kernel.

    Args:
      upstream: gradient of the normalized activations, of the dtype of `x`.
      x: activations.
      mean: mean of `x`, by any function.
      variance: biased variance of `x`, by any function.
      scale: scale of each channel.
      epsilon: number that is added to the variance.
    """
    return _kernel_gradient(upstream, x, mean, variance, scale, epsilon, training=True)


def moments_gradient(
    x: tf.Tensor,
    rows: ValidRows,
    mean: tf.Tensor,
    of_mean: tf.Tensor,
    of_variance: tf.Tensor,
    kernels: bool,
) -> tf.Tensor:
    """Returns the gradient of `x`, of its dtype, in the mean and variance of its valid rows.

    Args:
      x: activations.
      rows: the valid rows of `x`.
      mean: mean of these rows.
      of_mean: gradient of that mean.
      of_variance: gradient of the biased variance.
      kernels: result of `uses_kernels`.
    """
    count = tf.maximum(rows.count, 1.0)
    slope, level = 2 * of_variance / count, of_mean / count
    if not kernels:
        line = (tf.cast(x, tf.float32) - mean) * slope + level
        return tf.cast(rows.weighted(line), x.dtype)
    line = normalize(x, mean, tf.ones_like(mean), slope, level, 0.0, kernels)
    if rows.mask is None:
        return line
    return tf.cond(rows.all_valid(), lambda: line, lambda: rows.weighted(line))


def _kernel_gradient(
    upstream: tf.Tensor,
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    scale: tf.Tensor,
    epsilon: float,
    *,
    training: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    result = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=_of_rank_4(upstream),
        x=_of_rank_4(x),
        scale=scale,
        reserve_space_1=mean,
        reserve_space_2=variance,  # on a CPU; a GPU has another form of it
        reserve_space_3=tf.zeros([0]),
        epsilon=epsilon,
        is_training=training,
    )
    return _of_shape(result.x_backprop, x), result.scale_backprop, result.offset_backprop


def _of_rank_4(x: tf.Tensor) -> tf.Tensor:
    """Returns `x` as a tensor of rank 4, which the kernels need."""
    if x.shape.rank == 4:
        return x
    rows, channels = -1 if x.shape[0] is None else x.shape[0], x.shape[-1]
    positions = x.shape[1:-1].num_elements()
    if positions is None:
        return tf.reshape(x, [-1, 1, 1, channels])
    return tf.reshape(x, [rows, positions, 1, channels])


def _of_shape(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Returns `y`, a result for `_of_rank_4(x)`, in the shape of `x`."""
    if x.shape.rank == 4:
        # Not by an operation: TensorFlow makes one kernel of the normalization and a ReLU after it.
        y.set_shape(x.shape)
        return y
    return tf.reshape(y, tf.shape(x) if None in x.shape.as_list() else x.shape)
