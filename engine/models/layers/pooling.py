"""Pooling of images."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import at_least_one, image_shape


class MaxPool(Layer):
    """Max pooling over non-overlapping `size` x `size` windows, with VALID padding."""

    kind = "max pool"

    def __init__(self, size: int = 2):
        super().__init__()
        self.size = at_least_one("the size of a max pool", size)

    @property
    def label(self) -> str:
        """Label of the layer, for example "max pool 2x2"."""
        return f"max pool {self.size}x{self.size}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (height // size, width // size, channels)."""
        height, width, channels = image_shape(self, input_shape, self.size, initializer)
        return (height // self.size, width // self.size, channels)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns the maximum of each window: [rows, height // size, width // size, channels]."""
        return tf.nn.max_pool2d(x, self.size, self.size, "VALID")

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns the size of the input that an output corner needs; see `Layer.reads`."""
        return height * self.size, width * self.size


class GlobalAveragePool(Layer):
    """Global average pooling: the mean of each channel over all spatial positions."""

    kind = "global average pool"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (channels,); there are no variables."""
        return image_shape(self, input_shape, 1, initializer)[-1:]

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Averages [rows, height, width, channels] over all positions to [rows, channels]."""
        # In float32: a 16-bit sum of many numbers loses the small ones to rounding.
        return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), [1, 2]), context.dtype)
