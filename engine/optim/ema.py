"""Exponential moving average (EMA) of the weights, stored in a second model."""

from __future__ import annotations

import tensorflow as tf

from engine.models import properties


def update_ema(average: tf.Module, model: tf.Module, decay: float, updates: tf.Tensor) -> None:
    """Updates `average`, the EMA of the weights of `model`, in place; called in replica context.

    `a = d a + (1 - d) w` with `d = min(decay, (1 + t) / (10 + t))`, where t is `updates`, int64 [],
    the number of updates before this one (Polyak and Juditsky 1992). This warmup of the decay, the
    same as in `tf.train.ExponentialMovingAverage`, quickly removes the random initial weights from
    the average. Moving statistics, such as those of batch norm, are copied, because they are
    averages already; frozen variables are not updated.
    """
    t = tf.cast(updates, tf.float64)
    current_decay = tf.minimum(tf.constant(decay, tf.float64), (1.0 + t) / (10.0 + t))
    rate = tf.cast(1.0 - current_decay, tf.float32)
    kept = (properties.statistics(each) for each in (average, model))
    for mean, variable in zip(*kept, strict=True):
        tf.raw_ops.AssignVariableOp(resource=mean.handle, value=variable.read_value())
    for mean, variable in zip(average.trainable_variables, model.trainable_variables, strict=True):
        tf.raw_ops.AssignSubVariableOp(
            resource=mean.handle, value=(mean.read_value() - variable.read_value()) * rate
        )


def averaged(average: tf.Module) -> list[tf.Variable]:
    """Returns the variables of `average` that `update_ema` updates: all that are not frozen.

    The trainable variables are first, then the statistics.
    """
    return [*average.trainable_variables, *properties.statistics(average)]
