"""Averaged weights: a second model that follows the first."""

from __future__ import annotations

import tensorflow as tf


def follow(average: tf.Module, model: tf.Module, decay: float, updates: tf.Tensor) -> None:
    """Takes the model's new weights into their exponential moving average; in replica context.

    `a = d a + (1 - d) w` with `d = min(decay, (1 + t) / (10 + t))`, t updates before this one, so
    that the first weights, which are random, are soon forgotten (Polyak and Juditsky 1992; the
    warmup is that of TensorFlow's ExponentialMovingAverage). Statistics of batch norm are averages
    already, and are copied.

    Args:
      average: with the same variables in the same order.
      model: after its update.
      decay: in 0 to 1.
      updates: int64 [].
    """
    turn = tf.cast(updates, tf.float64)
    kept = tf.minimum(tf.constant(decay, tf.float64), (1.0 + turn) / (10.0 + turn))
    pull = tf.cast(1.0 - kept, tf.float32)
    trained = {id(variable) for variable in model.trainable_variables}
    for ours, theirs in zip(average.variables, model.variables, strict=True):
        if id(theirs) in trained:
            tf.raw_ops.AssignSubVariableOp(
                resource=ours.handle, value=(ours.read_value() - theirs.read_value()) * pull
            )
        else:
            tf.raw_ops.AssignVariableOp(resource=ours.handle, value=theirs.read_value())
