"""Multi-head self-attention."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import at_least_one, called
from engine.models.layers.dense import Dense
from engine.models.layers.dropout import Dropout


class Attention(Layer):
    """Multi-head self-attention over the tokens of each row, with as many output as input units.

    Vaswani et al., 2017, "Attention is all you need", section 3.2. Queries, values and outputs have
    biases; keys have none, because the softmax would cancel the bias, whose gradient would be
    rounding error, as before a batch norm.

    Args:
      heads: number of heads, which must divide the number of units.
      causal: whether a token attends only to itself and to earlier tokens.
      dropout: dropout rate of the attention weights. Like that of `Dropout`, the dropout mask is a
        function of (seed, step, row of the global batch, layer).

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "attention"

    def __init__(self, heads: int, causal: bool = False, dropout: float = 0.0):
        super().__init__()
        self.heads = at_least_one("the heads of an attention", heads)
        self.causal, self.dropout = causal, Dropout(dropout)

    @property
    def label(self) -> str:
        """Label of the layer, for example "causal attention of 4 heads"."""
        heads = f"attention of {self.heads} head{'s' if self.heads > 1 else ''}"
        dropout = f", {self.dropout.label}" if self.dropout.rate else ""
        return f"{'causal ' if self.causal else ''}{heads}{dropout}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, which is the input shape.

        Raises:
          ValueError: if the inputs are not sequences, or `heads` does not divide the units.
        """
        if len(input_shape) != 2:
            raise ValueError(
                f"{called(self, initializer)} takes sequences (tokens, units), got shape"
                f" {input_shape}: put Reshape(-1, units) before it"
            )
        self._tokens, units = input_shape
        if units % self.heads:
            raise ValueError(
                f"{called(self, initializer)} divides the units by its heads, got {units} units:"
                " give heads that divide them"
            )
        self._head_units = units // self.heads
        for name in ("query", "key", "value", "output"):
            projection = Dense(units, use_bias=name != "key")
            projection.build(input_shape, initializer.nested(name, "dense"))
            setattr(self, name, projection)
        weights = self.heads, self._tokens, self._tokens
        self.dropout.build(weights, initializer.nested("dropout", "dropout"))
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps [rows, tokens, units] to the same shape; the softmax is in float32."""
        projections = (self.query, self.key, self.value)
        query, key, value = (self._split(layer(x, context)) for layer in projections)
        # Scaled before the product, which could overflow float16, by a factor that is not rounded.
        query = tf.cast(query, tf.float32) / math.sqrt(self._head_units)
        scores = tf.matmul(tf.cast(query, context.dtype), key, transpose_b=True)
        scores = tf.cast(scores, tf.float32)  # [rows, heads, tokens, tokens]
        if self.causal:
            seen = np.tri(self._tokens, dtype=bool)
            scores = tf.where(seen, scores, tf.float32.min)
        weights = self.dropout(tf.cast(tf.nn.softmax(scores), context.dtype), context)
        mixed = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        units = self.heads * self._head_units
        return self.output(tf.reshape(mixed, [-1, self._tokens, units]), context)

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        """Splits [rows, tokens, units] into heads: [rows, heads, tokens, units of a head]."""
        shape = [-1, self._tokens, self.heads, self._head_units]
        return tf.transpose(tf.reshape(x, shape), [0, 2, 1, 3])
