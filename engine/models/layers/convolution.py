"""Convolutions of images."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Shape
from engine.models.layers.checks import at_least_one, image_shape, one_of
from engine.models.layers.kernel import WithKernel


class Convolution(WithKernel):
    """A 2-D convolution with `size` x `size` Glorot-uniform kernels and a zero-initialized bias.

    There is no bias if a batch norm follows and the layer has no activation.
    """

    kind = "convolution"

    def __init__(
        self,
        filters: int,
        size: int = 3,
        stride: int = 1,
        padding: Literal["VALID", "SAME"] = "VALID",
        activation: str | None = None,
    ):
        super().__init__(activation)
        self.filters = at_least_one("the filters of a convolution", filters)
        self.size = at_least_one("the size of a convolution", size)
        self.stride = at_least_one("the stride of a convolution", stride)
        self.padding = one_of("padding", padding, ("VALID", "SAME"))

    @property
    def label(self) -> str:
        """Label of the layer, for example "convolution 3x3x32 relu"."""
        stride = f"stride {self.stride}" if self.stride > 1 else ""
        parts = [f"convolution {self.size}x{self.size}x{self.filters}", stride, self.activation]
        return " ".join(part for part in parts if part)

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape (height', width', filters)."""
        covered = self.size if self.padding == "VALID" else 1
        height, width, channels = image_shape(self, input_shape, covered, initializer)
        self.create_variables((self.size, self.size, channels, self.filters), initializer)
        positions = [(side - covered) // self.stride + 1 for side in (height, width)]
        return (*positions, self.filters)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies convolution, bias and activation; returns [rows, height', width', filters]."""
        return self.finish(self.convolve(x, context), context)

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns the size of the input that an output corner needs; None for padding SAME."""
        if self.padding == "SAME":
            return None
        return (height - 1) * self.stride + self.size, (width - 1) * self.stride + self.size

    def convolve(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns the convolution of `x` with the kernel, without bias and activation."""
        return tf.nn.conv2d(x, tf.cast(self.kernel, context.dtype), self.stride, self.padding)
