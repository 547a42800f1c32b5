"""Fast global norms of float32 tensors."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_ROWS = 32


def length(tensors: Sequence[tf.Tensor], compiled: bool = False) -> tf.Tensor:
    """Returns the global norm: the Euclidean norm of the tensors as one vector, float32 [].

    It is infinite or nan exactly when an element is, or when it is above 1.8e19, whose square
    float32 cannot hold. (TensorFlow's own global norm turns an infinity into a nan.)

    Args:
      tensors: tensors, float32.
      compiled: whether XLA compiles it.
    """
    if compiled:
        return tf.sqrt(tf.add_n([_compiled_sum(tf.square(tensor)) for tensor in tensors]))
    # The fused kernel computes half the sum of squares.
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors]))


def _compiled_sum(squares: tf.Tensor) -> tf.Tensor:
    """Returns the sum of non-negative numbers.

    On a CPU, XLA adds sequentially, because it must not change the order. Adding up the rows of a
    table first allows it to vectorize. The absolute value, which changes nothing here, prevents XLA
    from merging the two sums.
    """
    squares = tf.reshape(squares, [-1])
    rest = squares.shape.num_elements() % _ROWS
    table = tf.reshape(squares[rest:], [_ROWS, -1])
    total = tf.reduce_sum(tf.abs(tf.reduce_sum(table, 0)))
    return total + tf.reduce_sum(squares[:rest]) if rest else total
