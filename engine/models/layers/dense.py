"""Fully connected layers, and layers that reshape their inputs."""

from __future__ import annotations

import math

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.fused_passes import fuses
from engine.models.layers.checks import at_least_one, called
from engine.models.layers.kernel import STDDEV, WithKernel


class Dense(WithKernel):
    """A fully connected layer on the last axis: a kernel, a zero-initialized bias, an activation.

    There is no bias without `use_bias`, or if a batch norm follows and the layer has no activation.

    Args:
      units: number of outputs, 1 or more.
      activation: name of an activation, as in `Activation`; None: no activation.
      use_bias: whether there is a bias.
      kernel_initializer: "glorot_uniform", "he_normal", "he_normal_fan_out", "normal",
        "truncated_normal", "zeros", "fan_in_uniform" or "dirac", an identity.
      kernel_stddev: standard deviation of "normal" and "truncated_normal".

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "dense"

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        kernel_stddev: float = STDDEV,
    ):
        super().__init__(activation, use_bias, kernel_initializer, kernel_stddev)
        self.units = at_least_one("the units of a dense layer", units)

    @property
    def label(self) -> str:
        """Label of the layer, for example "dense relu", without the number of units."""
        return f"dense {self.activation}" if self.activation else "dense"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, (..., units).

        Raises:
          ValueError: if `input_shape` is empty.
        """
        if not input_shape:
            raise ValueError(
                f"{called(self, initializer)} takes [rows, ..., features], got a number of each"
                " row: give the inputs a last axis of features"
            )
        self._axes, inputs = input_shape[:-1], input_shape[-1]
        self.create_variables((inputs, self.units), initializer)
        return (*self._axes, self.units)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies the kernel, the bias and the activation; returns [rows, ..., units]."""
        self.check_floating(x)
        kernel = tf.cast(self.kernel, context.dtype)
        if x.shape.rank == 2:  # one token of each sequence, too, for which it was not built
            return self.finish(tf.matmul(x, kernel), context)
        # As one matrix: the gradient of a batch of products would hold a kernel for each row.
        rows, inputs = x.shape[0], kernel.shape[0]
        count = -1 if rows is None else rows * math.prod(self._axes)
        x = tf.matmul(tf.reshape(x, [count, inputs]), kernel)
        # Before the reshape, so that TensorFlow makes one operation of product and bias.
        x = self.finish(x, context, fuses(x, context))
        return tf.reshape(x, [-1 if rows is None else rows, *self._axes, self.units])


class Flatten(Layer):
    """Layer that reshapes each row to a vector, in row-major order."""

    kind = "flatten"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (features,); there are no variables."""
        self.features = math.prod(input_shape)
        return (self.features,)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Reshapes [rows, ...] to [rows, features]."""
        # Not -1, which would take an image of another size for several.
        rows = tf.shape(x)[0] if x.shape[0] is None else x.shape[0]
        return tf.reshape(x, [rows, self.features])


class Reshape(Layer):
    """Layer that reshapes each row to the shape `sides`, in row-major order.

    One side may be -1, which stands for the side that keeps the number of elements. For example,
    `Reshape(-1, channels)` turns an image into a sequence of its positions.

    Raises:
      ValueError: if a side is neither -1 nor 1 or more, or if several sides are -1.
    """

    kind = "reshape"

    def __init__(self, *sides: int):
        super().__init__()
        if sides.count(-1) > 1 or any(side < 1 and side != -1 for side in sides):
            raise ValueError(f"the sides of a reshape must be 1 or more, or one -1, got {sides}")
        self.sides = sides

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape: `sides` with -1 replaced; there are no variables.

        Raises:
          ValueError: if the number of elements of `input_shape` does not fit `sides`.
        """
        features, known = math.prod(input_shape), math.prod(s for s in self.sides if s != -1)
        if features % known or (-1 not in self.sides and features != known):
            raise ValueError(
                f"{called(self, initializer)} cannot turn shape {input_shape} into {self.sides}:"
                " give as many elements, or -1 for one side"
            )
        self._shape = tuple(features // known if side == -1 else side for side in self.sides)
        return self._shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Reshapes [rows, ...] to `[rows, *sides]`, with -1 replaced."""
        return tf.reshape(x, [-1, *self._shape])
