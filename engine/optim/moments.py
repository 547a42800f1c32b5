"""Operations that several optimizers share: moments, bias correction, norms and updates."""

from __future__ import annotations

import tensorflow as tf


def bias_correction(beta: float, update: tf.Tensor) -> tf.Tensor:
    """Returns `1 - beta^t`, t counted from 1: the divisor that corrects a zero-initialized moment.

    Args:
      beta: decay rate of the moment, below 1.
      update: number of updates before this one, int64 [].

    Returns:
      The bias correction, float64 [].
    """
    turn = tf.cast(update + 1, tf.float64)
    return 1.0 - tf.constant(beta, tf.float64) ** turn


def norm(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean norm, float64 []; the squares of float32 do not overflow float64."""
    return tf.norm(tf.cast(tensor, tf.float64))


def average(mean: tf.Variable, value: tf.Tensor, decay: float) -> tf.Tensor:
    """Computes `mean = decay * mean + (1 - decay) * value` in place, and returns the new mean.

    It is computed as `mean + (1 - decay) * (value - mean)`, because `decay` and `1 - decay`, each
    rounded to float32, do not add up to 1. At 0.999, this would be a relative error of 1.3e-5 in
    the mean.
    """
    moved = mean + (1.0 - decay) * (value - mean)
    tf.raw_ops.AssignVariableOp(resource=mean.handle, value=moved)
    return moved


def descend(variable: tf.Variable, rate: tf.Tensor, direction: tf.Tensor) -> None:
    """Computes `variable -= rate * direction` in place on this replica, for a float32 [] rate."""
    tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=direction)
