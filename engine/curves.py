"""A point of the training curves: what the steps since the point before came to."""

from __future__ import annotations

import tensorflow as tf

from engine import metrics
from engine.assembly import Parts
from engine.scalars import whole


def training_point(parts: Parts) -> dict[str, float | int]:
    """Means since the point before, so that points do not overlap, and what moved the weights.

    The state remembers that they were written.

    Args:
      parts: of a run that has taken a step since the point before.
    """
    state, step = parts.state, int(parts.state.step)
    sums = state.sums.numpy()
    values = metrics.step_means(sums - state.logged.numpy(), parts.task.metrics)
    values["learning_rate"] = float(parts.schedule(tf.constant(whole(step - 1))))
    values["update_ratio"] = float(state.update_ratio)
    if state.loss_scale.dynamic:
        values["loss_scale"] = float(state.loss_scale.value)
    values["skipped_steps"] = step - int(state.updates)
    state.logged.assign(sums)
    state.written.assign(whole(step))
    return values
