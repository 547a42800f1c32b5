"""What several update rules compute."""

from __future__ import annotations

import tensorflow as tf


def bias_correction(beta: float, update: tf.Tensor) -> tf.Tensor:
    """`1 - beta^t`, t counted from 1: what a mean that began at 0 has to be divided by.

    Args:
      beta: the mean's decay, below 1.
      update: int64 [], updates applied before this one.

    Returns:
      float64 [].
    """
    turn = tf.cast(update + 1, tf.float64)
    return 1.0 - tf.constant(beta, tf.float64) ** turn


def norm(tensor: tf.Tensor) -> tf.Tensor:
    """The Euclidean norm over all elements, float64 []: no square of a float32 leaves its range."""
    return tf.norm(tf.cast(tensor, tf.float64))


def average(mean: tf.Variable, value: tf.Tensor, decay: float) -> tf.Tensor:
    """`mean = decay * mean + (1 - decay) * value`, in place, and returned.

    As a step towards the value: `decay` and `1 - decay`, each rounded to float32, do not add up to
    1, and at 0.999 that would put the mean wrong by 1.3e-5 of itself.
    """
    moved = mean + (1.0 - decay) * (value - mean)
    tf.raw_ops.AssignVariableOp(resource=mean.handle, value=moved)
    return moved


def descend(variable: tf.Variable, rate: tf.Tensor, direction: tf.Tensor) -> None:
    """`variable -= rate * direction`, in place, on this replica alone; the rate is float32 []."""
    tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=direction)
