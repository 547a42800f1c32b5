"""Operations of the loop by hand, with gradients in few passes over memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf


def fused_batch_norm(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes by the statistics of the batch, by TensorFlow's fused kernel.

    In float32, oneDNN's sums over all positions of a batch are less exact than those of
    `batch_norm`: the mean has 4 to 5 correct digits in place of 7.

    Args:
      x: float32 or bfloat16 [rows, height, width, channels].
      scale: float32 [channels].
      offset: float32 [channels].
      epsilon: number that is added to the variance.

    Returns:
      The result, as `x`; mean and biased variance, float32 [channels].
    """
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        is_training=True,
    )
    count = math.prod(x.shape[:-1])
    return y, mean, variance * ((count - 1) / count)  # the kernel's is that of a sample


def batch_norm(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes by the statistics of the batch, which are sums of one row and then of all.

    The kernel gets them, and its gradient is the kernel's. In bfloat16, whose own rounding is
    larger than the errors of `fused_batch_norm`, it is that. Arguments and results are those of
    `fused_batch_norm`.
    """
    if x.dtype != tf.float32:
        return fused_batch_norm(x, scale, offset, epsilon)
    portion = np.float32(1) / np.float32(math.prod(x.shape[:-1]))
    mean = tf.reduce_sum(tf.reduce_sum(x, [1, 2]), 0) * portion
    norms = tf.math.reduce_euclidean_norm(x, [1, 2])
    square = tf.reduce_sum(tf.square(norms), 0) * portion
    variance = tf.maximum(square - tf.square(mean), 0.0)
    mean, variance = tf.stop_gradient(mean), tf.stop_gradient(variance)

    @tf.custom_gradient
    def normalized(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            is_training=False,
        )

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            found = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=upstream,
                x=x,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=tf.zeros([0]),
                epsilon=epsilon,
                is_training=True,
            )
            return found[:3]

        return y, gradient

    return normalized(x, scale, offset), mean, variance


def layer_norm(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Normalizes the last axis in float32; `x` is [rows, units], and so is the result.

    Args:
      x: float32 or bfloat16.
      scale: float32 [units].
      offset: float32 [units].
      epsilon: number that is added to the variance.
    """
    dtype = x.dtype

    @tf.custom_gradient
    def normalized(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        wide = tf.cast(x, tf.float32)
        centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        inverse = tf.math.rsqrt(variance + epsilon)
        unit = centred * inverse

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            upstream = tf.cast(upstream, tf.float32)
            products = upstream * unit
            slope = upstream * scale
            mean = tf.reduce_mean(slope, -1, keepdims=True)
            along = tf.reduce_mean(slope * unit, -1, keepdims=True)
            found = (slope - mean - unit * along) * inverse
            return tf.cast(found, dtype), tf.reduce_sum(products, 0), tf.reduce_sum(upstream, 0)

        return tf.cast(unit * scale + offset, dtype), gradient

    return normalized(x, scale, offset)


@tf.custom_gradient
def gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns `x` times the normal distribution function at `x` (Hendrycks and Gimpel 2016)."""
    below = 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        density = tf.exp(-0.5 * tf.square(x)) * (1 / math.sqrt(2 * math.pi))
        return upstream * (below + x * density)

    return x * below, gradient


def biased_gelu(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Returns the GELU of `x + bias`, computed in float32, in the dtype of `x`."""
    return tf.cast(gelu(tf.cast(x, tf.float32) + bias), x.dtype)


@tf.custom_gradient
def embedded(table: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the rows `ids`, int32 [n], of a table; the gradient is a product with the ids."""
    vocabulary = table.shape[0]

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        chosen = tf.one_hot(ids, vocabulary, dtype=upstream.dtype)
        return tf.matmul(chosen, upstream, transpose_a=True), None

    return tf.gather(table, ids), gradient


def attention(x: tf.Tensor, tokens: int, heads: int, causal: bool, apart: bool) -> tf.Tensor:
    """Returns softmax(query @ key / sqrt(units of a head)) @ value of each head.

    Args:
      x: query, key and value side by side, [rows * tokens, 3 * units].
      tokens: tokens of a row.
      heads: heads, which divide the units.
      causal: whether a token sees only itself and earlier ones.
      apart: whether query, key and value are transposed one by one; small ones are faster so.

    Returns:
      [rows * tokens, units] in the dtype of `x`; the softmax is in float32.
    """
    size = x.shape[1] // 3 // heads
    if apart:
        shape, axes = [-1, tokens, heads, size], [0, 2, 1, 3]
        parts = (tf.transpose(tf.reshape(part, shape), axes) for part in tf.split(x, 3, 1))
    else:
        split = tf.transpose(tf.reshape(x, [-1, tokens, 3, heads, size]), [2, 0, 3, 1, 4])
        parts = tf.unstack(split)
    query, key, value = parts
    scores = tf.matmul(query * tf.cast(1 / math.sqrt(size), x.dtype), key, transpose_b=True)
    scores = tf.cast(scores, tf.float32)
    if causal:
        scores += np.where(np.tri(tokens, dtype=bool), 0, -1e30).astype(np.float32)
    mixed = tf.matmul(tf.cast(tf.nn.softmax(scores), x.dtype), value)
    return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, heads * size])


def attention_of_one(query: tf.Tensor, x: tf.Tensor, tokens: int, heads: int) -> tf.Tensor:
    """Returns the attention of one token of each row to all tokens; see `attention`.

    Args:
      query: [rows, units].
      x: key and value side by side, [rows * tokens, 2 * units].
      tokens: tokens of a row.
      heads: heads, which divide the units.

    Returns:
      [rows, units] in the dtype of `x`.
    """
    size = query.shape[1] // heads
    split = tf.transpose(tf.reshape(x, [-1, tokens, 2, heads, size]), [2, 0, 3, 1, 4])
    key, value = tf.unstack(split)
    query = tf.reshape(query * tf.cast(1 / math.sqrt(size), x.dtype), [-1, heads, 1, size])
    scores = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
    mixed = tf.matmul(tf.cast(tf.nn.softmax(scores), x.dtype), value)
    return tf.reshape(mixed, [-1, heads * size])
