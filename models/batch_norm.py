"""Batch normalisation whose batch is the global one: over all replicas, without the padding."""

from __future__ import annotations

import math

import tensorflow as tf

from models.contract import Initializer, Layer, Pass, Shape, Update


class BatchNorm(Layer):
    """Normalises each channel (the last dimension) to a learned offset and scale.

    Ioffe and Szegedy, 2015, "Batch Normalization". In training with the mean and the biased
    variance of the valid rows of the batch, over all replicas, else with their moving averages.
    Where a global batch is cut into micro-batches or virtual shards, each of them is a batch to
    this layer (Hoffer et al., 2017, "Train longer, generalize better", call it ghost batch norm),
    and the moving averages move once, towards the mean of their statistics. A pass proposes new
    moving averages in `Pass.updates` and never assigns them.
    """

    kind = "batch norm"

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"the momentum of a batch norm must be in [0, 1], got {momentum}")
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Any shape to itself."""
        channels = input_shape[-1:]
        self.scale = initializer.constant("scale", channels, 1.0)
        self.offset = initializer.constant("offset", channels, 0.0)
        self.moving_mean = initializer.statistic("moving_mean", channels, 0.0)
        self.moving_variance = initializer.statistic("moving_variance", channels, 1.0)
        return input_shape

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """[rows, ..., channels] to the same shape, computed in float32."""
        x = tf.cast(x, tf.float32)  # Squares overflow float16, and sums outgrow bfloat16.
        if call.training:
            mean, variance = self._moments(x, call)
        else:
            mean, variance = tf.identity(self.moving_mean), tf.identity(self.moving_variance)
        scale = self.scale * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x * scale + (self.offset - mean * scale), call.dtype)

    def _moments(self, x: tf.Tensor, call: Pass) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance [channels] over all replicas' valid rows; proposes moving averages."""
        axes = list(range(x.shape.rank - 1))
        # Squares of numbers around the moving mean, not around zero: the variance is then no small
        # difference of large numbers once the moving mean is near the batch's.
        shift = tf.identity(self.moving_mean)
        centred = x - shift
        if call.mask is None:
            valid, rows = centred, tf.cast(tf.shape(x)[0], tf.float32)
        else:
            valid = centred * tf.reshape(call.mask, [-1] + [1] * (x.shape.rank - 1))
            rows = tf.reduce_sum(call.mask)
        here = rows * math.prod(x.shape[1:-1])
        sums, squares, count = call.all_reduce(
            [tf.reduce_sum(valid, axes), tf.reduce_sum(valid * centred, axes), here]
        )
        offset = sums / tf.maximum(count, 1.0)
        mean = shift + offset
        # Rounding may take a variance of almost nothing below zero.
        variance = tf.maximum(squares / tf.maximum(count, 1.0) - tf.square(offset), 0.0)
        pull = 1 - self.momentum
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            proposed = moving + pull * (tf.stop_gradient(batch) - moving)
            # Padding has no statistics: a batch of nothing else has no weight.
            call.updates.append(Update(moving, proposed, here))
        return mean, variance
