"""Gradient clipping by global norm and by value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from engine.distributed.reduction import Tensors

_ROWS = 32  # of the matrices in which `_compiled_sum` arranges the numbers
_COLUMNS = 16  # of each matrix, if there are several
_CONFLICT = _ROWS * 512  # numbers of one matrix whose rows are 2 KiB; multiples conflict, too


@dataclass(frozen=True)
class Clip:
    """Function that clips the all-reduced gradients of the global batch.

    Attributes:
      norm: maximum global norm. If the global norm of the gradients is larger, all gradients are
        multiplied by the same factor, so that their global norm becomes `norm` (Pascanu et al.
        2013, "On the difficulty of training recurrent neural networks"). 0 disables this.
      value: maximum absolute value of a gradient element. Larger elements are clipped to `value`
        (negative ones to -`value`) before the clipping by `norm`. 0 disables this.
      compiled: whether XLA compiles the clipping.
    """

    norm: float = 0.0
    value: float = 0.0
    compiled: bool = False

    def __call__(self, gradients: Sequence[tf.Tensor]) -> tuple[Tensors, tf.Tensor]:
        """Returns the clipped gradients, and the global norm before clipping, float32 []."""
        gradients, factor, norm = self.factored(gradients)
        return multiplied(gradients, factor), norm

    def factored(
        self, gradients: Sequence[tf.Tensor]
    ) -> tuple[Tensors, tf.Tensor | None, tf.Tensor]:
        """Returns what `multiplied` takes to clip gradients, and the global norm before clipping.

        Returns:
          The gradients, clipped by value only; the factor that clips them by norm, float32 [], or
          None without `norm`; the global norm before clipping, float32 [].
        """
        gradients, norm = list(gradients), global_norm(gradients, self.compiled)
        if self.value:
            gradients = [tf.clip_by_value(g, -self.value, self.value) for g in gradients]
        if not self.norm:
            return gradients, None, norm
        clipped_norm = global_norm(gradients, self.compiled) if self.value else norm
        factor = self.norm / tf.maximum(clipped_norm, self.norm)  # exactly 1 without clipping
        return gradients, factor, norm


def multiplied(gradients: Sequence[tf.Tensor], factor: tf.Tensor | None) -> Tensors:
    """Returns the products of gradients and a factor, float32 []; the gradients for None."""
    return list(gradients) if factor is None else [gradient * factor for gradient in gradients]


def global_norm(tensors: Sequence[tf.Tensor], compiled: bool = False) -> tf.Tensor:
    """Returns the Euclidean norm of all elements of float32 tensors, float32 [].

    The norm is infinite or nan if and only if an element is, or if the norm exceeds 1.8e19, because
    its square overflows float32. (`tf.clip_by_global_norm` turns gradients of infinite norm into
    nan.) `compiled` is whether XLA compiles the calling function; it selects the faster code.
    """
    if compiled:  # by XLA
        return tf.sqrt(tf.add_n([_compiled_sum(tf.square(tensor)) for tensor in tensors]))
    # `tf.nn.l2_loss` is one fused kernel; it computes half the sum of squares.
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors]))


def _compiled_sum(squares: tf.Tensor) -> tf.Tensor:
    """Returns the sum of non-negative numbers, in an order that XLA can vectorize on CPUs.

    XLA for CPUs does not reorder a sum, so it adds the numbers sequentially. But if the numbers are
    arranged as a matrix, it vectorizes the addition of the rows to one row. `tf.abs`, which does
    not change non-negative numbers, prevents XLA from merging this sum with that of the row.

    Rows that are a multiple of 2 KiB apart share a few sets of a processor's cache, and evict each
    other. So such numbers are arranged as many matrices of short rows, each of which is added to
    one row.
    """
    squares = tf.reshape(squares, [-1])
    numbers = squares.shape.num_elements()
    if numbers % _CONFLICT == 0:
        tables = tf.reshape(squares, [-1, _ROWS, _COLUMNS])
        return tf.reduce_sum(tf.abs(tf.reduce_sum(tables, 1)))
    rest = numbers % _ROWS
    table = tf.reshape(squares[rest:], [_ROWS, -1])
    total = tf.reduce_sum(tf.abs(tf.reduce_sum(table, 0)))
    return total + tf.reduce_sum(squares[:rest]) if rest else total
