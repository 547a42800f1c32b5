"""Sums over rows and positions of tensors of 16 bits, accumulated in float32."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext


def needed(context: ForwardContext) -> bool:
    """Returns whether TensorFlow would sum the gradient of a variable in fewer than 32 bits.

    On a CPU, it sums that of a bias in bfloat16, and of a tensor that is added to each row in
    float16: a sum in bfloat16 stops growing at 256 times its terms. XLA sums in float32.

    Args:
      context: context of the forward pass.
    """
    return context.training and not context.compiled and context.dtype != tf.float32


def sum_over(x: tf.Tensor, axes: int) -> tf.Tensor:
    """Returns the sum of a tensor over its first `axes` axes, float32, accumulated in float32.

    That of a bfloat16 tensor on a CPU is rounded to bfloat16 once.
    """
    over = list(range(axes))
    if x.dtype == tf.bfloat16 and not tf.config.list_logical_devices("GPU"):
        # This kernel adds in float32 and reads the tensor as it is. That of float16 does not.
        return tf.cast(tf.reduce_sum(x, over), tf.float32)
    return tf.reduce_sum(tf.cast(x, tf.float32), over)
