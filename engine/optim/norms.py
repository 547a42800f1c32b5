"""Fast computation of the global norm of float32 tensors."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_ROWS = 32


def length(tensors: Sequence[tf.Tensor], compiled: bool = False) -> tf.Tensor:
    """Returns the global norm, float32 []: the Euclidean norm of all elements of the tensors.

    It is infinite or nan if and only if an element is, or if it exceeds 1.8e19, because its square
    overflows float32. (`tf.clip_by_global_norm` turns gradients of infinite norm into nan.)

    Args:
      tensors: float32 tensors.
      compiled: whether XLA compiles the computation.
    """
    if compiled:
        return tf.sqrt(tf.add_n([_compiled_sum(tf.square(tensor)) for tensor in tensors]))
    # `tf.nn.l2_loss` is one fused kernel; it computes half the sum of squares.
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors]))


def _compiled_sum(squares: tf.Tensor) -> tf.Tensor:
    """Returns the sum of non-negative numbers, in an order that XLA can vectorize on CPUs.

    XLA for CPUs does not reorder a sum, so it adds the numbers sequentially. A sum over the rows of
    a matrix, before the sum of the result, can be vectorized. The absolute value, which does not
    change non-negative numbers, prevents XLA from merging the two sums.
    """
    squares = tf.reshape(squares, [-1])
    rest = squares.shape.num_elements() % _ROWS
    table = tf.reshape(squares[rest:], [_ROWS, -1])
    total = tf.reduce_sum(tf.abs(tf.reduce_sum(table, 0)))
    return total + tf.reduce_sum(squares[:rest]) if rest else total
