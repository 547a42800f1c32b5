"""A gradient that is made infinite on purpose."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from engine.task import Scores, Task


class Poisoned:
    """A task whose gradient of one row can be made an infinity or a nan; its loss stays as it is.

    While it is off, gradients are multiplied with 1, which changes no bit.

    Args:
      task: as it is.
    """

    def __init__(self, task: Task) -> None:
        self.metrics = task.metrics
        self.task = task
        self.factor = tf.Variable(1.0, trainable=False)  # of the row's gradient
        self.row = tf.Variable(-1, dtype=tf.int64, trainable=False)  # in the global batch; -1: none

    def __call__(self, model: Any, batch: Any, call: Any) -> Scores:
        """See `Task`."""
        scores = self.task(model, batch, call)
        losses = scores.losses
        if losses.shape.rank == 0:  # not what a task may give; L1 is to say so
            losses = tf.broadcast_to(losses, tf.shape(batch.mask))
        rows = batch.row + tf.range(tf.shape(batch.mask)[0], dtype=tf.int64)
        factor = tf.cast(tf.where(rows == self.row, self.factor, 1.0), losses.dtype)
        factor = tf.reshape(factor, [-1] + [1] * (losses.shape.rank - 1))

        @tf.custom_gradient
        def poisoned(losses: tf.Tensor) -> Any:
            return tf.identity(losses), lambda upstream: upstream * factor

        return Scores(poisoned(losses), scores.metrics)

    @property
    def switches(self) -> tuple[tf.Variable, tf.Variable]:
        """Its own variables; no step writes them."""
        return self.factor, self.row

    def strike(self, row: int, factor: float) -> None:
        """Multiplies the gradient of a row with `factor` from now on; row -1: of none."""
        self.row.assign(row)
        self.factor.assign(factor)
