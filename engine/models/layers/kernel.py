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
            bias = tf.cast(self.bias, context.dtype)
            rounds = context.training and context.dtype == tf.bfloat16
            x = _add_bias(x, bias) if rounds else tf.nn.bias_add(x, bias)
        return ACTIVATIONS[self.activation](x)


@tf.custom_gradient
def _add_bias(x, bias):
    """Adds a bfloat16 bias, with a gradient that is summed in float32.

    On a CPU, `BiasAddGrad` sums in bfloat16, where a sum stops growing at 256 times its terms: over
    3,000 positions, it loses two thirds of the gradient.
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        summed = tf.raw_ops.BiasAddGrad(out_backprop=tf.cast(upstream, tf.float32))
        return upstream, tf.cast(summed, tf.bfloat16)

    return tf.nn.bias_add(x, bias), gradient
