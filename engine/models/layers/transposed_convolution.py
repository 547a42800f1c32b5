"""Transposed convolution layer for images."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Shape
from engine.models.layers.checks import at_least_one, image_shape, one_of
from engine.models.layers.convolution_base import ConvolutionBase, Padding


class ConvolutionTranspose(ConvolutionBase):
    """A 2-D transposed convolution, for example to enlarge images by the factor `stride`.

    A side of the output has side * stride positions with padding "SAME", and side * stride +
    max(size - stride, 0) with "VALID", as in Keras, where `side` is that of the input. The
    arguments are those of `Convolution`.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "transposed convolution"

    def __init__(
        self,
        filters: int,
        size: int = 3,
        stride: int = 1,
        padding: Padding = "VALID",
        activation: str | None = None,
        *,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
    ):
        super().__init__(size, stride, padding, activation, use_bias, kernel_initializer)
        self.padding = one_of("padding", padding, ("VALID", "SAME"))
        self.filters = at_least_one("the filters of a transposed convolution", filters)

    @property
    def label(self) -> str:
        """Label of the layer, for example "transposed convolution 2x2x16 stride 2"."""
        return self.format_label(f"{self.size}x{self.size}x{self.filters}")

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, (height, width, filters).

        Height and width are those of the output.

        Raises:
          ValueError: if the inputs are not images.
        """
        height, width, channels = image_shape(self, input_shape, 1, initializer)
        self.create_variables((self.size, self.size, channels, self.filters), initializer)
        more = max(self.size - self.stride, 0) if self.padding == "VALID" else 0
        sides = (side * self.stride + more for side in (height, width))
        self._output_shape = (*sides, self.filters)
        return self._output_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies convolution, bias and activation; returns `[rows, *output_shape]`."""
        self.check_floating(x)
        # `tf.nn` wants [size, size, outputs, inputs], as that of the convolution it transposes.
        kernel = tf.transpose(tf.cast(self.kernel, context.dtype), [0, 1, 3, 2])
        shape = [tf.shape(x)[0], *self._output_shape]
        x = tf.nn.conv2d_transpose(x, kernel, shape, self.stride, self.padding)
        return self.finish(x, context)
