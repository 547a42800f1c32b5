"""Fully connected layers, and the layer that flattens their inputs."""

from __future__ import annotations

import math

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import at_least_one
from engine.models.layers.kernel import WithKernel


class Dense(WithKernel):
    """A fully connected layer: Glorot-uniform kernel, zero-initialized bias.

    There is no bias if a batch norm follows and the layer has no activation.
    """

    kind = "dense"

    def __init__(self, units: int, activation: str | None = None):
        super().__init__(activation)
        self.units = at_least_one("the units of a dense layer", units)

    @property
    def label(self) -> str:
        """Label of the layer, for example "dense relu", without the number of units."""
        return f"dense {self.activation}" if self.activation else "dense"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, (units,)."""
        if len(input_shape) != 1:
            raise ValueError(
                f"dense (layer {initializer.index}) takes vectors, got shape {input_shape}:"
                " put Flatten() or GlobalAveragePool() before it"
            )
        self.create_variables((*input_shape, self.units), initializer)
        return (self.units,)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies the kernel, the bias and the activation; returns [rows, units]."""
        return self.finish(tf.matmul(x, tf.cast(self.kernel, context.dtype)), context)


class Flatten(Layer):
    """Reshapes each row to a vector, in row-major order."""

    kind = "flatten"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (features,); there are no variables."""
        self.features = math.prod(input_shape)
        return (self.features,)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Reshapes [rows, ...] to [rows, features]."""
        return tf.reshape(x, [-1, self.features])
