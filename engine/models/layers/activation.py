"""Activations by name."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import one_of

# Each must be a non-decreasing function: `Sequential` may apply a max pool before them.
ACTIVATIONS = {None: tf.identity, "relu": tf.nn.relu}


class Activation(Layer):
    """An activation as a separate layer, for example after a batch norm."""

    kind = "activation"

    def __init__(self, activation: str):
        super().__init__()
        self.activation = one_of("activation", activation, tuple(filter(None, ACTIVATIONS)))

    @property
    def label(self) -> str:
        """Label of the layer: the name of the activation, for example "relu"."""
        return self.activation

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, which is the input shape; there are no variables."""
        return input_shape

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns the size of the input that an output corner needs; see `Layer.reads`."""
        return height, width

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies the activation to each element of `x`."""
        return ACTIVATIONS[self.activation](x)
