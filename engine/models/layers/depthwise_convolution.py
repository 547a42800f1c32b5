"""Depthwise convolution layer for images."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Shape
from engine.models.layers.checks import at_least_one, image_shape, one_of
from engine.models.layers.convolution_base import ConvolutionBase, Padding


class DepthwiseConvolution(ConvolutionBase):
    """A 2-D convolution of each channel separately, with `multiplier` outputs per channel.

    A following `Convolution` of size 1 makes it a separable convolution (Chollet 2017, "Xception").
    The other arguments are those of `Convolution`.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "depthwise convolution"

    def __init__(
        self,
        size: int = 3,
        stride: int = 1,
        padding: Padding = "VALID",
        activation: str | None = None,
        *,
        multiplier: int = 1,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
    ):
        super().__init__(size, stride, padding, activation, use_bias, kernel_initializer)
        self.padding = one_of("padding", padding, ("VALID", "SAME"))
        self.multiplier = at_least_one("the multiplier of a depthwise convolution", multiplier)

    @property
    def label(self) -> str:
        """Label of the layer, for example "depthwise convolution 3x3 relu"."""
        times = f"x{self.multiplier}" if self.multiplier > 1 else ""
        return self.format_label(f"{self.size}x{self.size}{times}")

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, (height, width, channels * multiplier).

        Height and width are those of the output.

        Raises:
          ValueError: if the inputs are not images or, with padding "VALID", are smaller than a
            kernel.
        """
        smallest = self.smallest_side(self.size)
        height, width, self._channels = image_shape(self, input_shape, smallest, initializer)
        outputs = self._channels * self.multiplier
        self.create_variables((self.size, self.size, 1, outputs), initializer, self._channels)
        return (*self.positions(height, width, self.size), outputs)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies convolution, bias and activation; returns `[rows, *output_shape]`."""
        self.check_floating(x)
        shape = self.size, self.size, self._channels, self.multiplier
        kernel = tf.reshape(tf.cast(self.kernel, context.dtype), shape)
        strides = [1, self.stride, self.stride, 1]
        return self.finish(tf.nn.depthwise_conv2d(x, kernel, strides, self.padding), context)
