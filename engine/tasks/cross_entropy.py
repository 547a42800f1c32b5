"""Sparse softmax cross-entropy with a deterministic gradient.

If op determinism is enabled, TensorFlow's own function computes loss and gradient in several dozen
small operations. The fused CPU kernel is deterministic and computes both in one operation. The
fused GPU kernel is not deterministic, so a few operations replace it.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the loss of each row, `-log softmax(logits)[label]`; differentiable in the logits.

    Args:
      logits: float32 [rows, classes].
      labels: int32 [rows], each in 0 .. classes-1.

    Returns:
      float32 [rows].
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
