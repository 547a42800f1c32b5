"""Sparse softmax cross-entropy with a deterministic gradient.

With op determinism, `tf.nn.sparse_softmax_cross_entropy_with_logits` runs several dozen small
operations instead of one fused kernel. The fused CPU kernel is deterministic, so this module calls
that kernel directly. The fused GPU kernel is not, so a few operations replace it. So they do on a
CPU with many classes, where they take half of the kernel's time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

_MANY = 1024  # classes above which a pass over the logits takes longer than a few operations


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the loss of each position, `-log softmax(logits)[label]`, float32 [...].

    The loss is differentiable with respect to the logits; the gradient is deterministic. With
    more than 1,024 classes on a CPU, what is kept for the gradient is the logits and a number of
    each position, not a second tensor of the size of the logits.

    Args:
      labels: integers [...], each in 0 .. classes - 1; any other is an error, or its loss is nan.
      logits: [..., classes] of a floating dtype. Sums and losses of 16-bit logits are in float32.
    """
    classes, shape = logits.shape[-1], labels.shape
    if labels.dtype not in (tf.int32, tf.int64):
        labels = tf.cast(labels, tf.int32)
    if shape.rank != 1:
        losses = cross_entropy(tf.reshape(labels, [-1]), tf.reshape(logits, [-1, classes]))
        return tf.ensure_shape(tf.reshape(losses, tf.shape(labels)), shape)
    if classes > _MANY and not tf.config.list_logical_devices("GPU"):
        return _of_many(logits, labels)
    return _of_few(tf.cast(logits, tf.float32), labels)


@tf.custom_gradient
def _of_few(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the losses of float32 logits [rows, classes] by a fused kernel, float32 [rows]."""
    if tf.config.list_logical_devices("GPU"):
        one_hot = tf.one_hot(labels, logits.shape[-1])
        log_probabilities = tf.nn.log_softmax(logits)
        losses = -tf.reduce_sum(one_hot * log_probabilities, axis=-1)
        slope = tf.exp(log_probabilities) - one_hot
    else:
        losses, slope = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
            features=logits, labels=labels
        )

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return upstream[:, tf.newaxis] * slope, None

    return losses, gradient


@tf.custom_gradient
def _of_many(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the losses of logits [rows, classes] of any floating dtype, float32 [rows]."""
    classes = logits.shape[-1]
    wide = tf.cast(logits, tf.float32)
    largest = tf.reduce_max(wide, -1, keepdims=True)
    # The logarithm of the sum of exponentials, float32 [rows, 1].
    total = tf.math.log(tf.reduce_sum(tf.exp(wide - largest), -1, keepdims=True)) + largest
    at_label = tf.cast(tf.gather(logits, labels, batch_dims=1), tf.float32)
    # XLA reads another element for a label out of range.
    at_label = tf.where((labels >= 0) & (labels < classes), at_label, math.nan)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        slope = tf.exp(tf.cast(logits, tf.float32) - total) * upstream[:, tf.newaxis]
        rows = tf.range(tf.shape(labels, labels.dtype)[0], dtype=labels.dtype)
        places = tf.stack([rows, labels], 1)
        return tf.cast(tf.tensor_scatter_nd_sub(slope, places, upstream), logits.dtype), None

    return total[:, 0] - at_label, gradient
