"""Sparse softmax cross-entropy with a deterministic gradient.

With op determinism, `tf.nn.sparse_softmax_cross_entropy_with_logits` runs several dozen small
operations instead of one fused kernel. The fused CPU kernel is deterministic, so this module calls
that kernel directly. The fused GPU kernel is not, so a few operations replace it.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the loss of each row, `-log softmax(logits)[label]`, float32 [rows].

    The loss is differentiable with respect to the logits; the gradient is deterministic.

    Args:
      logits: float32 [rows, classes].
      labels: int32 [rows], each in 0 .. classes - 1.
    """
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
