"""Pooling layers for images: maximum, average and global average."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import at_least_one, called, image_shape, one_of


class MaxPool(Layer):
    """Max pooling over `size` x `size` windows that are `stride` (by default `size`) apart.

    Args:
      size: height and width of the windows.
      stride: distance between the windows; None: `size`, so that windows do not overlap.
      padding: "VALID": no incomplete windows. "SAME": the output has ceil(side / stride) positions,
        and a window at the border covers only the elements inside the image, as in Keras. An
        integer of at most size / 2: the image is extended by so many rows and columns on each side,
        which are never the maximum, as in PyTorch.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "max pool"

    def __init__(
        self,
        size: int = 2,
        stride: int | None = None,
        padding: Literal["VALID", "SAME"] | int = "VALID",
    ):
        super().__init__()
        self.size = at_least_one("the size of a max pool", size)
        stride = size if stride is None else stride
        self.stride = at_least_one("the stride of a max pool", stride)
        known: tuple[str | int, ...] = ("VALID", "SAME", *range(self.size // 2 + 1))
        # With more than half the size, a window could lie outside the image.
        padding = one_of(f"padding of a max pool of size {size}", padding, known)
        self.padding = padding or "VALID"

    @property
    def label(self) -> str:
        """Label of the layer, for example "max pool 2x2" or "max pool 3x3 stride 2"."""
        stride = f" stride {self.stride}" if self.stride != self.size else ""
        return f"max pool {self.size}x{self.size}{stride}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (windows in height, windows in width, channels).

        Raises:
          ValueError: if the inputs are not images or, with their padding, are smaller than a
            window.
        """
        covered = 1 if self.padding == "SAME" else self.size - 2 * self._border
        height, width, channels = image_shape(self, input_shape, max(covered, 1), initializer)
        positions = [(side - covered) // self.stride + 1 for side in (height, width)]
        return (*positions, channels)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns the maximum of each window, `[rows, *output_shape]`."""
        border = [self._border] * 2
        padding = [[0, 0], border, border, [0, 0]] if self._border else self.padding
        return tf.nn.max_pool2d(x, self.size, self.stride, padding)

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns ((height - 1) * stride + size, (width - 1) * stride + size); None with padding.

        See `Layer.reads`.
        """
        if self.padding != "VALID":
            return None
        return (height - 1) * self.stride + self.size, (width - 1) * self.stride + self.size

    @property
    def _border(self) -> int:
        return self.padding if isinstance(self.padding, int) else 0


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
