"""A task that goes wrong on purpose."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from engine.task import Scores, Task


class Poisoned:
    """A task of which one row can go wrong: a part of what it gives becomes infinite or nan.

    While all is well everything is multiplied with 1, which changes no bit.

    Args:
      task: as it is.
    """

    PARTS = ("gradient", "loss", "metric", "statistic")

    def __init__(self, task: Task) -> None:
        self.metrics = task.metrics
        self.task = task
        self._row = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._factors = {part: tf.Variable(1.0, trainable=False) for part in self.PARTS}

    @property
    def switches(self) -> tuple[tf.Variable, ...]:
        """Its own variables; no step writes them."""
        return self._row, *self._factors.values()

    def poison(self, row: int, factor: float, part: str = "gradient") -> None:
        """From now on a row has one part times `factor`.

        Args:
          row: its place in the global batch.
          factor: what to multiply with.
          part: "gradient" leaves the loss as it is, and "loss" the gradient; "metric" is all of
            the task's; "statistic" is all that layers propose for the piece of the batch in which
            the row is.
        """
        self._row.assign(row)
        self._factors[part].assign(factor)

    def heal(self) -> None:
        """All is well again."""
        self._row.assign(-1)
        for factor in self._factors.values():
            factor.assign(1.0)

    def __call__(self, model: Any, batch: Any, call: Any) -> Scores:
        """See `Task`."""
        scores = self.task(model, batch, call)
        losses = scores.losses
        if losses.shape.rank == 0:  # not what a task may give; L1 is to say so
            losses = tf.broadcast_to(losses, tf.shape(batch.mask))
        rows = batch.row + tf.range(tf.shape(batch.mask)[0], dtype=tf.int64)
        gradient, loss, metric, statistic = (
            tf.where(rows == self._row, self._factors[part], 1.0) for part in self.PARTS
        )
        gradient, loss = (_of_rows(factor, losses) for factor in (gradient, loss))

        @tf.custom_gradient
        def poisoned(losses: tf.Tensor) -> Any:
            return losses * loss, lambda upstream: upstream * gradient

        of_piece = tf.reduce_prod(statistic)
        call.updates[:] = [u._replace(value=u.value * of_piece) for u in call.updates]
        metrics = tuple(each * _of_rows(metric, each) for each in scores.metrics)
        return Scores(poisoned(losses), metrics)


def _of_rows(factor: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """A factor for each row, in the shape and dtype of `values`."""
    shape = [-1] + [1] * ((values.shape.rank or 1) - 1)
    return tf.cast(tf.reshape(factor, shape), values.dtype)
