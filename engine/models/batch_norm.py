"""Batch normalization with statistics of all replicas, which exclude padding rows."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape, StatisticUpdate
from engine.models.batch_normalization import batch_normalized
from engine.models.channel_passes import NORMALIZED_DTYPES, normalize, uses_kernels, valid_rows


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
      epsilon: number that is added to the variance, above 0.
      use_scale: whether there is a scale; without it, the scale is 1.
      zero_scale: whether the scale starts at 0 instead of 1. As the last layer of a residual
        branch, the block then starts as its shortcut (Goyal et al. 2017, "Accurate, large minibatch
        SGD").

    Raises:
      ValueError: if `momentum` is not in [0, 1], `epsilon` is not above 0, or `zero_scale` is given
        without a scale.
    """

    kind = "batch norm"

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        *,
        use_scale: bool = True,
        zero_scale: bool = False,
    ):
        super().__init__()
        if zero_scale and not use_scale:
            raise ValueError("a batch norm with zero_scale needs a scale: leave use_scale True")
        if not epsilon > 0:
            raise ValueError(f"the epsilon of a batch norm must be above 0, got {epsilon}")
        self._first_scale, self.has_scale = 0.0 if zero_scale else 1.0, use_scale
        if not 0 <= momentum <= 1:
            raise ValueError(f"the momentum of a batch norm must be in [0, 1], got {momentum}")
        self.momentum, self.epsilon = momentum, epsilon

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, which is the input shape."""
        channels = input_shape[-1:]
        if self.has_scale:
            self.scale = initializer.constant("scale", channels, self._first_scale)
        self.offset = initializer.constant("offset", channels, 0.0)
        self.moving_mean = initializer.statistic("moving_mean", channels, 0.0)
        self.moving_variance = initializer.statistic("moving_variance", channels, 1.0)
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Normalizes `x`, [rows, ..., channels]; returns the result in `context.dtype`.

        Statistics are float32, and so are sums over activations. In training, appends the proposed
        moving mean and moving variance to `context.updates`.
        """
        if x.dtype not in NORMALIZED_DTYPES:
            x = tf.cast(x, tf.float32)
        offset = tf.convert_to_tensor(self.offset)
        scale = tf.convert_to_tensor(self.scale) if self.has_scale else tf.ones(offset.shape)
        parameters = scale, offset
        if context.training:
            rows = valid_rows(x, context.padding_mask)
            y, mean, variance = batch_normalized(x, *parameters, rows, self.epsilon, context)
            self._propose(mean, variance, rows.count, context)
        else:
            moments = tf.identity(self.moving_mean), tf.identity(self.moving_variance)
            # An exported model may run on a GPU, whose kernel takes no smaller epsilon.
            kernels = uses_kernels(context.compiled) and self.epsilon > 1.001e-5
            y = normalize(x, *moments, *parameters, self.epsilon, kernels)
        return tf.cast(y, context.dtype)

    def _propose(
        self, mean: tf.Tensor, variance: tf.Tensor, local_count: tf.Tensor, context: ForwardContext
    ) -> None:
        """Appends the proposed moving averages to `context.updates`.

        Their weight is the number of valid elements per channel on this replica.
        """
        rate = 1 - self.momentum
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            constant = tf.stop_gradient(batch)
            proposed = moving + rate * (constant - moving)
            # The weight, the number of valid elements per channel, is 0 for padding only.
            context.updates.append(StatisticUpdate(moving, proposed, local_count, constant))
