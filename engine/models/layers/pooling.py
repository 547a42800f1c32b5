"""Pooling layers for images: maximum, average and global average."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import at_least_one, called, image_shape, one_of


class MaxPool(Layer):
    """Max pooling over non-overlapping `size` x `size` windows, with VALID padding.

    Raises:
      ValueError: if `size` is not an integer of 1 or more.
    """

    kind = "max pool"

    def __init__(self, size: int = 2):
        super().__init__()
        self.size = at_least_one("the size of a max pool", size)

    @property
    def label(self) -> str:
        """Label of the layer, for example "max pool 2x2"."""
        return f"max pool {self.size}x{self.size}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (height // size, width // size, channels).

        Raises:
          ValueError: if the inputs are not images, or are smaller than a window.
        """
        height, width, channels = image_shape(self, input_shape, self.size, initializer)
        return (height // self.size, width // self.size, channels)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns the maximum of each window, [rows, height // size, width // size, channels]."""
        return tf.nn.max_pool2d(x, self.size, self.size, "VALID")

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns (height * size, width * size): windows do not overlap; see `Layer.reads`."""
        return height * self.size, width * self.size


class AveragePool(Layer):
    """Average pooling over `size` x `size` windows that are `stride` (by default `size`) apart.

    With padding "VALID", there are no incomplete windows. With "SAME", the output has ceil(side /
    stride) positions, and a window at the border averages only the elements inside the image, as in
    Keras.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "average pool"

    def __init__(
        self, size: int = 2, stride: int | None = None, padding: Literal["VALID", "SAME"] = "VALID"
    ):
        super().__init__()
        self.size = at_least_one("the size of an average pool", size)
        stride = size if stride is None else stride
        self.stride = at_least_one("the stride of an average pool", stride)
        self.padding = one_of("padding", padding, ("VALID", "SAME"))

    @property
    def label(self) -> str:
        """Label of the layer, for example "average pool 2x2"."""
        stride = f" stride {self.stride}" if self.stride != self.size else ""
        return f"average pool {self.size}x{self.size}{stride}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (windows in height, windows in width, channels).

        Raises:
          ValueError: if the inputs are not images or, with padding "VALID", are smaller than a
            window.
        """
        covered = self.size if self.padding == "VALID" else 1
        height, width, channels = image_shape(self, input_shape, covered, initializer)
        positions = [(side - covered) // self.stride + 1 for side in (height, width)]
        return (*positions, channels)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns the mean of each window, `[rows, *output_shape]` in `context.dtype`."""
        # In float32, for the reason given in `GlobalAveragePool`.
        means = tf.nn.avg_pool2d(tf.cast(x, tf.float32), self.size, self.stride, self.padding)
        return tf.cast(means, context.dtype)


class GlobalAveragePool(Layer):
    """Global average pooling: the mean of each channel over all positions of an example."""

    kind = "global average pool"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (channels,); there are no variables.

        Raises:
          ValueError: if the inputs are neither images nor sequences.
        """
        if len(input_shape) not in (2, 3):
            raise ValueError(
                f"{called(self, initializer)} takes images (height, width, channels) or sequences"
                f" (tokens, features), got shape {input_shape}: put it before Flatten()"
            )
        return input_shape[-1:]

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Averages [rows, ..., channels] over all positions to [rows, channels]."""
        # In float32: a 16-bit sum of many numbers loses the small ones to rounding.
        positions = list(range(1, x.shape.rank - 1))
        return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), positions), context.dtype)
