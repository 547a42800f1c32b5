"""Batch normalisation whose batch is the global one: over all replicas, without the padding."""

from __future__ import annotations

import math

import tensorflow as tf

from models.contract import Initializer, Layer, Pass, Shape


class BatchNorm(Layer):
    """Normalises each channel (the last dimension) to a learned offset and scale.

    Ioffe and Szegedy, 2015, "Batch Normalization". In training with the mean and the biased
    variance of the valid rows of the global batch, else with their moving averages. A pass
    proposes new moving averages in `Pass.updates` and never assigns them.
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
            mean, variance = self._global_moments(x, call)
        else:
            mean, variance = tf.identity(self.moving_mean), tf.identity(self.moving_variance)
        scale = self.scale * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x * scale + (self.offset - mean * scale), call.dtype)

    def _global_moments(self, x: tf.Tensor, call: Pass) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance [channels] over all replicas' valid rows; proposes moving averages."""
        axes = list(range(x.shape.rank - 1))
        if call.mask is None:
            valid, rows = x, tf.cast(tf.shape(x)[0], tf.float32)
        else:
            valid = x * tf.reshape(call.mask, [-1] + [1] * (x.shape.rank - 1))
            rows = tf.reduce_sum(call.mask)
        sums, squares, count = call.all_reduce(
            [
                tf.reduce_sum(valid, axes),
                tf.reduce_sum(valid * x, axes),
                rows * math.prod(x.shape[1:-1]),
            ]
        )
        mean = sums / tf.maximum(count, 1.0)
        # Rounding may take a variance of almost nothing below zero.
        variance = tf.maximum(squares / tf.maximum(count, 1.0) - tf.square(mean), 0.0)
        # A batch of nothing but padding has no statistics, so it must not move the averages.
        pull = tf.where(count > 0, 1 - self.momentum, 0.0)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            call.updates.append((moving, moving + pull * (tf.stop_gradient(batch) - moving)))
        return mean, variance
