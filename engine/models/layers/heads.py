"""Query, key and value of attention heads, from one product with kernels side by side."""

from __future__ import annotations

import math

import tensorflow as tf

from engine.models.fused_passes import column_sums, compiled


def split_heads(
    x: tf.Tensor, bias: tf.Tensor, heads: int, tokens: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Adds a bias, and splits queries, keys and values side by side into those of each head.

    XLA computes this in one pass, and its gradient in two; see `engine.models.fused_passes`.

    Args:
      x: queries, keys and values, [rows * tokens, 3 * units] of a floating dtype.
      bias: float32 [3 * units].
      heads: number of heads, which divides the units.
      tokens: number of tokens of a row.

    Returns:
      Queries, divided by the square root of the units of a head, keys and values: [rows, heads,
      tokens, units of a head] each, of the dtype of `x`.
    """

    @tf.custom_gradient
    def function(x, bias):
        def gradient(*upstream):
            of_x = compiled(_joined)(*upstream)
            # Apart: in one program with it, XLA computes `of_x` twice.
            return of_x, column_sums(of_x)

        return compiled(_split, heads=heads, tokens=tokens)(x, bias), gradient

    return function(x, bias)


def _split(x: tf.Tensor, bias: tf.Tensor, heads: int, tokens: int) -> tuple[tf.Tensor, ...]:
    wide = tf.reshape(tf.cast(x, tf.float32) + bias, [-1, tokens, 3 * heads, _size(x, heads)])
    query, key, value = tf.split(tf.transpose(wide, [0, 2, 1, 3]), 3, 1)
    query *= 1 / math.sqrt(_size(x, heads))
    return tuple(tf.cast(each, x.dtype) for each in (query, key, value))


def _size(x: tf.Tensor, heads: int) -> int:
    return x.shape[1] // 3 // heads


def _joined(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Returns the gradient of what `_split` splits, by the gradients of its results."""
    heads, size = query.shape[1], query.shape[3]
    query = tf.cast(tf.cast(query, tf.float32) * (1 / math.sqrt(size)), query.dtype)
    parts = [tf.transpose(each, [0, 2, 1, 3]) for each in (query, key, value)]
    return tf.reshape(tf.concat(parts, 2), [-1, 3 * heads * size])
