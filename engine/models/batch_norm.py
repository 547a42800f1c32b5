"""Batch normalization with statistics of all replicas, which exclude padding rows."""

from __future__ import annotations

import math

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape, StatisticUpdate


class BatchNorm(Layer):
    """Batch normalization of each channel (the last dimension), with a learned scale and offset.

    Ioffe and Szegedy, 2015, "Batch Normalization". Training uses the mean and the biased variance
    of the valid rows of the batch, over all replicas; evaluation uses their moving averages. If a
    global batch is split into micro-batches or virtual shards (`--shards`), each of these is
    normalized by its mean and variance (ghost batch norm; Hoffer et al., 2017, "Train longer,
    generalize better"), and the moving averages are updated once, towards the weighted mean of
    these statistics.

    Args:
      momentum: decay of the moving averages, in [0, 1].
      epsilon: number that is added to the variance.
      zero_scale: whether the scale starts at 0 instead of 1. As the last layer of a residual
        branch, the block then starts as its shortcut (Goyal et al. 2017, "Accurate, large minibatch
        SGD").

    Raises:
      ValueError: if `momentum` is not in [0, 1].
    """

    kind = "batch norm"

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, *, zero_scale: bool = False):
        super().__init__()
        self._first_scale = 0.0 if zero_scale else 1.0
        if not 0 <= momentum <= 1:
            raise ValueError(f"the momentum of a batch norm must be in [0, 1], got {momentum}")
        self.momentum, self.epsilon = momentum, epsilon

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, which is the input shape."""
        channels = input_shape[-1:]
        self.scale = initializer.constant("scale", channels, self._first_scale)
        self.offset = initializer.constant("offset", channels, 0.0)
        self.moving_mean = initializer.statistic("moving_mean", channels, 0.0)
        self.moving_variance = initializer.statistic("moving_variance", channels, 1.0)
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Normalizes `x`, [rows, ..., channels], in float32; returns the result in `context.dtype`.

        In training, appends the proposed moving mean and moving variance to `context.updates`.
        """
        x = tf.cast(x, tf.float32)  # Squares overflow float16; sums are inexact in bfloat16.
        if context.training:
            mean, variance = self._moments(x, context)
        else:
            mean, variance = tf.identity(self.moving_mean), tf.identity(self.moving_variance)
        scale = self.scale * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x * scale + (self.offset - mean * scale), context.dtype)

    def _moments(self, x: tf.Tensor, context: ForwardContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mean and the biased variance of the valid rows of all replicas.

        Both are float32 [channels]; `context.all_reduce` sums over the replicas. Appends the
        proposed moving averages to `context.updates`. Their weight is the number of valid elements
        per channel on this replica.
        """
        axes = list(range(x.shape.rank - 1))
        # The inputs are shifted by the moving mean before they are squared. Once it is close to the
        # mean of the batch, the variance is not a small difference of large numbers.
        shift = tf.identity(self.moving_mean)
        centred = x - shift
        if context.mask is None:
            valid, rows = centred, tf.cast(tf.shape(x)[0], tf.float32)
        else:
            valid = centred * tf.reshape(context.mask, [-1] + [1] * (x.shape.rank - 1))
            rows = tf.reduce_sum(context.mask)
        local_count = rows * math.prod(x.shape[1:-1])
        sums, squares, count = context.all_reduce(
            [tf.reduce_sum(valid, axes), tf.reduce_sum(valid * centred, axes), local_count]
        )
        offset = sums / tf.maximum(count, 1.0)
        mean = shift + offset
        # Rounding can make a variance close to 0 negative.
        variance = tf.maximum(squares / tf.maximum(count, 1.0) - tf.square(offset), 0.0)
        rate = 1 - self.momentum
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            constant = tf.stop_gradient(batch)
            proposed = moving + rate * (constant - moving)
            # The weight, the number of valid elements per channel, is 0 for padding only.
            context.updates.append(StatisticUpdate(moving, proposed, local_count, constant))
        return mean, variance
