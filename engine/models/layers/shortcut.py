"""Shortcut without weights, for residual blocks that change the shape of an image."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.channel_passes import uses_kernels
from engine.models.layers.checks import at_least_one, called, image_shape


class PaddedShortcut(Layer):
    """Shortcut that takes every `stride`-th row and column, and appends channels of zeros.

    Option A of He et al., 2016, "Deep residual learning for image recognition", section 4.1.

    Args:
      channels: number of output channels, at least that of the inputs.
      stride: distance between the rows, and between the columns, that are taken.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "padded shortcut"

    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.channels = at_least_one("the channels of a padded shortcut", channels)
        self.stride = at_least_one("the stride of a padded shortcut", stride)

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (ceil(height / stride), ceil(width / stride), channels).

        Raises:
          ValueError: if the inputs are not images, or have more channels than the output.
        """
        height, width, channels = image_shape(self, input_shape, 1, initializer)
        self._added = self.channels - channels
        if self._added < 0:
            raise ValueError(
                f"{called(self, initializer)} appends channels to {channels} of the inputs, got"
                f" {self.channels}: give at least {channels} channels"
            )
        return (-(-height // self.stride), -(-width // self.stride), self.channels)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps [rows, height, width, channels] to `[rows, *output_shape]`."""
        return tf.pad(self._taken(x, context), [[0, 0], [0, 0], [0, 0], [0, self._added]])

    def _taken(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns every `stride`-th row and column of `x`."""
        if self.stride == 1:
            return x
        if x.dtype.is_floating and uses_kernels(context.compiled):
            # As a pool of single elements: a slice and its gradient run on one core.
            return tf.nn.avg_pool2d(x, 1, self.stride, "VALID")
        return x[:, :: self.stride, :: self.stride]
