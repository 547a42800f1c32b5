"""Activation functions by name, and the layer that applies one."""

from __future__ import annotations

import math

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.fused_passes import fused, fuses
from engine.models.layers.checks import one_of


@tf.custom_gradient
def gelu(x):
    """Returns the GELU, `x * P(X <= x)` for a normal X (Hendrycks and Gimpel 2016).

    It is computed in float32 and returned in the dtype of `x`: on a CPU, elementwise operations in
    16 bits are several times slower than the conversions. What is kept for the gradient is the
    slope at `x`, in the dtype of `x`, so that the gradient is one product.
    """
    wide = tf.cast(x, tf.float32)
    scaled = wide * math.sqrt(0.5)
    below = 0.5 + 0.5 * tf.math.erf(scaled)
    # The derivative is P(X <= x) + x * density(x).
    slope = below + tf.exp(-tf.square(scaled)) * (scaled / math.sqrt(math.pi))
    slope = tf.cast(slope, x.dtype)
    return tf.cast(wide * below, x.dtype), lambda upstream: upstream * slope


def biased_gelu(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Returns the GELU of `x + bias`, computed in float32, in the dtype of `x`.

    Args:
      x: [..., units] of a floating dtype.
      bias: float32 [units].
    """
    return tf.cast(gelu(tf.cast(x, tf.float32) + bias), x.dtype)


# Functions of `tf.nn` that keep the shape. All but the softmaxes, which are over the last axis, map
# each element alone.
NAMES = (
    *("elu", "gelu", "leaky_relu", "log_softmax", "relu", "relu6", "selu", "sigmoid", "silu"),
    *("softmax", "softplus", "softsign", "swish", "tanh"),
)
ACTIVATIONS = {None: tf.identity} | {name: getattr(tf.nn, name) for name in NAMES} | {"gelu": gelu}
# What is non-decreasing to the last bit commutes with a max pool.
NON_DECREASING = (None, "relu", "relu6")


class Activation(Layer):
    """Layer that applies an activation function, for example after a batch norm.

    `activation` is the name of a function of `tf.nn`: "elu", "gelu" (with the error function),
    "leaky_relu" (slope 0.2), "log_softmax", "relu", "relu6", "selu", "sigmoid", "silu", "softmax",
    "softplus", "softsign", "swish" or "tanh". The softmaxes are over the last axis.

    Raises:
      ValueError: for any other name.
    """

    kind = "activation"

    def __init__(self, activation: str):
        super().__init__()
        self.activation = one_of("activation", activation, NAMES)
        self._is_separate = False

    @property
    def label(self) -> str:
        """Label of the layer: the name of the activation, for example "relu"."""
        return self.activation

    @property
    def is_non_decreasing(self) -> bool:
        """Whether the activation is non-decreasing, so that a max pool may precede it."""
        return self.activation in NON_DECREASING

    def follow_norm(self) -> None:
        """Tells the layer that the layer before it is a batch norm.

        TensorFlow then makes one kernel of both, for a ReLU on a CPU. It does so only if no control
        edge starts at the ReLU; those of the gradients that know its shape then start at the
        operation after it, which copies nothing.
        """
        self._is_separate = True

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, which is the input shape; there are no variables."""
        return input_shape

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns (height, width): an activation does not move elements; see `Layer.reads`."""
        return height, width

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies the activation to `x`, [rows, ...]; returns the same shape."""
        if self.activation == "gelu" and fuses(x, context):
            return fused(gelu, x)
        x = ACTIVATIONS[self.activation](x)
        separate = self._is_separate and context.training and not context.compiled
        return tf.ensure_shape(x, x.shape) if separate else x
