"""Weighted sums of the new values of a model's statistics, such as moving means."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.distributed.reduction import Tensors
from engine.models.base import StatisticUpdate


def weighted_sums(statistics: Sequence[tf.Variable], updates: Sequence[StatisticUpdate]) -> Tensors:
    """Returns the sum of weight * value of each statistic, then the sum of the weights of each.

    Args:
      statistics: the statistics of a model, in order.
      updates: values that a forward pass proposes for them, in any order.

    Raises:
      ValueError: if an update is of a variable that is not a statistic.
    """
    indices = {id(variable): i for i, variable in enumerate(statistics)}
    values = zeros(statistics)
    for update in updates:
        if id(update.variable) not in indices:
            raise ValueError(
                f"the model proposes a new value of {update.variable.name}, which is no statistic: "
                "create it with trainable=False and aggregation=MEAN"
            )
        index = indices[id(update.variable)]
        values[index] += update.value * update.weight
        values[len(statistics) + index] += update.weight
    return values


def zeros(statistics: Sequence[tf.Variable]) -> Tensors:
    """Returns zeros of the shapes of the results of `weighted_sums`, float32."""
    return [
        *(tf.zeros(variable.shape) for variable in statistics),
        *[tf.zeros([])] * len(statistics),
    ]
