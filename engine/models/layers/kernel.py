"""Base class of layers that apply a kernel."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.activation import ACTIVATIONS
from engine.models.layers.checks import one_of


class WithKernel(Layer):
    """Base class of layers that apply a kernel, a bias and an optional activation, in this order.

    The bias is omitted if a batch norm follows and the layer has no activation.
    """

    def __init__(self, activation: str | None) -> None:
        super().__init__()
        self.activation = one_of("activation", activation, tuple(ACTIVATIONS))
        self.has_bias = True

    def expect_norm(self) -> None:
        """Omits the bias if there is no activation; see `Layer.expect_norm`."""
        self.has_bias = self.activation is not None

    def create_variables(self, kernel_shape: Shape, initializer: Initializer) -> None:
        """Creates the kernel and any bias."""
        self.kernel = initializer.glorot_uniform("kernel", kernel_shape)
        if self.has_bias:
            self.bias = initializer.constant("bias", kernel_shape[-1:], 0.0)

    def finish(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Adds any bias and applies the activation; non-decreasing in each element of `x`."""
        if self.has_bias:
            x = tf.nn.bias_add(x, tf.cast(self.bias, context.dtype))
        return ACTIVATIONS[self.activation](x)
