"""Multi-head self-attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.fused_passes import compiled, fuses
from engine.models.layers.checks import at_least_one, called
from engine.models.layers.dense import Dense
from engine.models.layers.dropout import Dropout
from engine.models.layers.heads import split_heads
from engine.models.layers.kernel import STDDEV, add_bias
from engine.models.layers.rotary import rotated


class Attention(Layer):
    """Multi-head self-attention over the tokens of each row, with as many output as input units.

    Vaswani et al., 2017, "Attention is all you need", section 3.2. Queries, values and outputs have
    biases; by default, keys have none, because the softmax would cancel the bias, whose gradient
    would be rounding error, as before a batch norm.

    Args:
      heads: number of heads, which must divide the number of units.
      causal: whether a token attends only to itself and to earlier tokens.
      dropout: dropout rate of the attention weights. Like that of `Dropout`, the dropout mask is a
        function of (seed, step, row of the global batch, layer).
      rotary: whether queries and keys are rotated by the positions of their tokens; see
        `engine.models.layers.rotary`.
      use_bias: whether queries, values and outputs have biases.
      key_bias: whether keys have a bias, too, as in GPT-2 and vision transformers: for the weights
        and the numbers of parameters that are published. Without `rotary`, it keeps its value,
        because its gradient is exactly 0; with `rotary`, it is learned.
      kernel_initializer: as in `Dense`, of the four projections.
      kernel_stddev: as in `Dense`, of the four projections.
      output_stddev: standard deviation for the output projection; None: `kernel_stddev`.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "attention"

    def __init__(
        self,
        heads: int,
        causal: bool = False,
        dropout: float = 0.0,
        *,
        rotary: bool = False,
        use_bias: bool = True,
        key_bias: bool = False,
        kernel_initializer: str = "glorot_uniform",
        kernel_stddev: float = STDDEV,
        output_stddev: float | None = None,
    ):
        super().__init__()
        self.heads = at_least_one("the heads of an attention", heads)
        self.causal, self.dropout = causal, Dropout(dropout)
        self.rotary, self._use_bias, self._use_key_bias = rotary, use_bias, key_bias
        self._initializer = kernel_initializer
        stddevs = dict.fromkeys(("query", "key", "value"), kernel_stddev)
        # Assigned whole: TensorFlow saves no module with a dict that was changed after that.
        self._stddevs = {**stddevs, "output": output_stddev or kernel_stddev}
        for each in self._stddevs.values():  # which checks the arguments
            Dense(1, kernel_initializer=kernel_initializer, kernel_stddev=each)

    @property
    def label(self) -> str:
        """Label of the layer, for example "causal attention of 4 heads"."""
        heads = f"attention of {self.heads} head{'s' if self.heads > 1 else ''}"
        dropout = f", {self.dropout.label}" if self.dropout.rate else ""
        rotary = "rotary " if self.rotary else ""
        return f"{'causal ' if self.causal else ''}{rotary}{heads}{dropout}"

    @property
    def cancelled_variables(self) -> list[tf.Variable]:
        """Trainable variables that affect no output, and so keep their values."""
        return [] if self.key_bias is None else [self.key_bias]

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, which is the input shape.

        Raises:
          ValueError: if the inputs are not sequences, `heads` does not divide the units, or heads
            that are rotated have an odd number of units.
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
        if self.rotary and self._head_units % 2:
            raise ValueError(
                f"{called(self, initializer)} rotates pairs of units, got {self._head_units} units"
                " a head: give heads of an even number of units"
            )
        learned_key_bias = self._use_key_bias and self.rotary
        for name in ("query", "key", "value", "output"):
            projection = Dense(
                units,
                use_bias=learned_key_bias if name == "key" else self._use_bias,
                kernel_initializer=self._initializer,
                kernel_stddev=self._stddevs[name],
            )
            projection.build(input_shape, initializer.nested(name, "dense"))
            setattr(self, name, projection)
        self.key_bias = None
        if self._use_key_bias and not self.rotary:
            of_keys = initializer.nested("key", "dense")
            self.key_bias = of_keys.constant("bias", (units,), 0.0)
        weights = self.heads, self._tokens, self._tokens
        self.dropout.build(weights, initializer.nested("dropout", "dropout"))
        return input_shape

    def takes_one_token(self, context: ForwardContext) -> bool:
        """Returns whether a call can compute one token alone: no dropout, no rotary positions."""
        return not (self.rotary or (context.training and self.dropout.rate))

    def __call__(
        self, x: tf.Tensor, context: ForwardContext, token: int | None = None
    ) -> tf.Tensor:
        """Maps [rows, tokens, units] to the same shape; the softmax is in float32.

        With `token`, which needs `takes_one_token`, it maps to [rows, units] of this token.
        """
        if token is not None:
            return self._of_token(x, context, token)
        units, rows = self.heads * self._head_units, x.shape[0]
        fuse = not self.rotary and fuses(x, context)
        query, key, value = self._projected(x, context, fuse)
        weights_shape = tf.shape(query)[0], self.heads, self._tokens, self._tokens
        mask = self.dropout.mask(weights_shape, context)
        seen = np.tri(self._tokens, dtype=bool) if self.causal else None
        mixed = attended(query, key, value, seen, mask, fused=fuse)
        mixed = tf.transpose(mixed, [0, 2, 1, 3])
        mixed = tf.reshape(mixed, [-1 if rows is None else rows, self._tokens, units])
        return self.output(mixed, context)

    def _of_token(self, x: tf.Tensor, context: ForwardContext, token: int) -> tf.Tensor:
        """Returns the output of one token, [rows, units]; the others are keys and values only."""
        units = self.heads * self._head_units
        query = self.query(x[:, token], context)
        key, value = self.key(x, context), self.value(x, context)
        if self.key_bias is not None:
            key = _add_cancelled(key, tf.cast(self.key_bias, context.dtype))
        shape = [-1, self._tokens, self.heads, self._head_units]
        key, value = (tf.transpose(tf.reshape(each, shape), [0, 2, 1, 3]) for each in (key, value))
        query = tf.reshape(query, [-1, self.heads, 1, self._head_units])
        seen = np.tri(self._tokens, dtype=bool)[[token]] if self.causal else None
        mixed = attended(query, key, value, seen)
        return self.output(tf.reshape(mixed, [-1, units]), context)

    @property
    def joined(self) -> tuple[Dense, ...]:
        """The projections that are computed as one product: those of query, key and value."""
        return self.query, self.key, self.value

    def _projected(self, x: tf.Tensor, context: ForwardContext, fuse: bool) -> Sequence[tf.Tensor]:
        """Returns query, key and value, [rows, heads, tokens, units of a head] each.

        With `fuse`, they are those of `split_heads`, whose queries are scaled.

        One product with the three kernels side by side takes less time than three products, in both
        directions; putting them side by side costs little, because they do not grow with the rows.
        """
        units = self.heads * self._head_units
        self.query.check_floating(x)
        kernel = tf.concat([each.kernel for each in self.joined], 1)
        biases = [each.bias if each.has_bias else tf.zeros([units]) for each in self.joined]
        rows = x.shape[0]
        count = -1 if rows is None else rows * self._tokens
        x = tf.matmul(tf.reshape(x, [count, units]), tf.cast(kernel, context.dtype))
        if fuse:
            if self.key_bias is not None:
                biases[1] = _add_cancelled(biases[1], self.key_bias)
            return split_heads(x, tf.concat(biases, 0), self.heads, self._tokens)
        x = add_bias(x, tf.concat(biases, 0), context)
        shape = [-1, self._tokens, self.heads, self._head_units]
        query, key, value = tf.split(x, 3, -1)
        if self.key_bias is not None:
            key = _add_cancelled(key, tf.cast(self.key_bias, context.dtype))
        query, key, value = (
            tf.transpose(tf.reshape(each, shape), [0, 2, 1, 3]) for each in (query, key, value)
        )
        if self.rotary:
            query, key = rotated(query), rotated(key)
        return [query, key, value]


def attended(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    seen: np.ndarray | None = None,
    mask: tf.Tensor | None = None,
    fused: bool = False,
) -> tf.Tensor:
    """Returns the values that each query attends to, `softmax(query key^T / sqrt(units)) value`.

    The softmax and its gradient are in float32. The gradient takes fewer passes over the weights
    than that which TensorFlow derives: weights that are not seen are 0, so that their gradient is,
    too; and the sum of `weight * gradient` over the keys, which the gradient of a softmax
    subtracts, is the sum of `output * gradient` over the units (Dao et al. 2022,
    "FlashAttention", appendix B.2).

    Args:
      query: queries, [rows, heads, tokens, units] of a floating dtype, which the other tensors have
        and the result has.
      key: keys, of the same shape.
      value: values, of the same shape.
      seen: whether a query attends to a key, bool [tokens, tokens]; None: always.
      mask: dropout mask of the weights, [rows, heads, tokens, tokens]; None: no dropout.
      fused: whether the queries are scaled already, by `split_heads`, and XLA computes the passes
        between the products; see `engine.models.fused_passes`.
    """
    dtype, scale = query.dtype, 1 if fused else 1 / math.sqrt(query.shape[-1])
    once = compiled if fused else lambda function: function

    @tf.custom_gradient
    def function(query, key, value):
        # Scaled before the product, which could overflow float16, by a factor that is not rounded.
        query = tf.cast(tf.cast(query, tf.float32) * scale, dtype)
        scores = tf.matmul(query, key, transpose_b=True)  # [rows, heads, tokens, tokens]
        weights = once(_softmax)(scores, *([] if seen is None else [seen]))
        kept = weights if mask is None else weights * mask
        mixed = tf.matmul(kept, value)

        def gradient(upstream):
            of_weights = tf.matmul(upstream, value, transpose_b=True)
            if mask is not None:
                of_weights *= mask
            of_scores = once(_softmax_gradient)(weights, of_weights, mixed, upstream)
            of_query = tf.cast(tf.matmul(of_scores, key), tf.float32) * scale
            return (
                tf.cast(of_query, dtype),
                tf.matmul(of_scores, query, transpose_a=True),
                tf.matmul(kept, upstream, transpose_a=True),
            )

        return mixed, gradient

    return function(query, key, value)


def _softmax(scores: tf.Tensor, seen: Any = None) -> tf.Tensor:
    """Returns the weights of the keys that are seen, of the dtype of the scores."""
    wide = tf.cast(scores, tf.float32)
    if seen is not None:
        wide = tf.where(seen, wide, tf.float32.min)
    return tf.cast(tf.nn.softmax(wide), scores.dtype)


def _softmax_gradient(
    weights: tf.Tensor, of_weights: tf.Tensor, mixed: tf.Tensor, upstream: tf.Tensor
) -> tf.Tensor:
    """Returns the gradient of the scores; see `attended`."""
    common = tf.cast(mixed, tf.float32) * tf.cast(upstream, tf.float32)
    slope = tf.cast(of_weights, tf.float32) - tf.reduce_sum(common, -1, keepdims=True)
    return tf.cast(tf.cast(weights, tf.float32) * slope, weights.dtype)


@tf.custom_gradient
def _add_cancelled(keys, bias):
    """Adds a bias to all keys; its gradient is 0, exactly, because the softmax cancels the bias."""
    # The product of a query and the bias is added to all scores of the query.

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream, tf.zeros_like(bias)

    return keys + bias, gradient
