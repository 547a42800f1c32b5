"""Exponential moving average (EMA) of the weights, stored in a second model."""

from __future__ import annotations

import tensorflow as tf


def update_ema(average: tf.Module, model: tf.Module, decay: float, updates: tf.Tensor) -> None:
    """Updates the EMA of the weights; called in replica context.

    `a = d a + (1 - d) w` with `d = min(decay, (1 + t) / (10 + t))`, where t is the number of
    updates before this one (Polyak and Juditsky 1992). This warmup of the decay, the same as in
    `tf.train.ExponentialMovingAverage`, quickly removes the random initial weights from the
    average. The moving statistics of batch norm are averages already, so they are copied.

    Args:
      average: model that holds the EMA, with the same variables in the same order as `model`.
      model: model whose weights have just been updated.
      decay: maximum decay rate of the EMA, 0 to 1.
      updates: number of updates before this one, int64 [].
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
