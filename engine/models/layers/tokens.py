"""Layers that add a token to a sequence, and that select one."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import called


class ClassToken(Layer):
    """Layer that puts a learned token before each sequence, whose output a classifier reads.

    Dosovitskiy et al., 2021, "An image is worth 16x16 words", after BERT. The token starts at 0.
    """

    kind = "class token"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the token, [units]; returns the output shape, (tokens + 1, units).

        Raises:
          ValueError: if the inputs are not sequences.
        """
        tokens, units = _sequence(self, input_shape, initializer)
        self.token = initializer.constant("token", (units,), 0.0)
        return (tokens + 1, units)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps [rows, tokens, units] to [rows, tokens + 1, units]."""
        # Repeated in float32, so that the gradient is summed over the rows in float32.
        token = tf.broadcast_to(self.token, [tf.shape(x)[0], 1, x.shape[-1]])
        return tf.concat([tf.cast(token, context.dtype), x], 1)


class SelectToken(Layer):
    """Layer that returns one token of each sequence, such as the class token, which is the first.

    Args:
      index: position of the token; a negative one counts from the end.
    """

    kind = "select token"

    def __init__(self, index: int = 0):
        super().__init__()
        self.index = index

    @property
    def label(self) -> str:
        """Label of the layer, for example "token 0"."""
        return f"token {self.index}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (units,); there are no variables.

        Raises:
          ValueError: if the inputs are not sequences, or have no such token.
        """
        tokens, units = _sequence(self, input_shape, initializer)
        if not -tokens <= self.index < tokens:
            raise ValueError(
                f"{called(self, initializer)} selects from {tokens} tokens: give an index from"
                f" {-tokens} to {tokens - 1}"
            )
        return (units,)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps [rows, tokens, units] to [rows, units]."""
        return x[:, self.index]


def _sequence(layer: Layer, input_shape: Shape, initializer: Initializer) -> Shape:
    if len(input_shape) != 2:
        raise ValueError(
            f"{called(layer, initializer)} takes sequences (tokens, units), got shape"
            f" {input_shape}: put Reshape(-1, units) before it"
        )
    return input_shape
