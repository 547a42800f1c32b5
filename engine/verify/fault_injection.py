"""A task wrapper that makes the loss, gradient or metrics of one row infinite or nan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from engine.tasks.metrics import Metric
from engine.tasks.task import Task, TaskOutput


class _FaultyMetric(Metric):
    """Wraps a metric; the last argument is a factor of each row, which multiplies the sums."""

    def __init__(self, metric: Metric) -> None:
        self.size, self.better, self.float64 = metric.size, metric.better, metric.float64
        self.percentage, self._metric = metric.percentage, metric
        self.result = metric.result  # type: ignore[method-assign]

    def sums(self, weights: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        """Returns the metric's sums times the factors of all rows but padding."""
        *arguments, factors = arguments  # type: ignore[assignment]
        factor = tf.reduce_prod(tf.where(weights > 0, factors, 1.0))
        return self._metric.sums(weights, *arguments) * tf.cast(factor, tf.float64)


class FaultInjectingTask(Task):
    """Wraps a task; `inject` makes one of `PARTS`, for one row of a batch, infinite or nan.

    Without a fault, all parts are multiplied by 1, which leaves them bitwise identical.
    """

    PARTS = ("gradient", "loss", "metric", "statistic")

    def __init__(self, task: Task) -> None:
        self.metrics: Mapping[str, Metric] = {
            name: _FaultyMetric(metric) for name, metric in task.metrics.items()
        }
        self.task = task
        self.drawn: set[str] = set()  # kinds of random numbers that traced training steps draw
        self._row = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._factors = {part: tf.Variable(1.0, trainable=False) for part in self.PARTS}

    @property
    def switches(self) -> tuple[tf.Variable, ...]:
        """Variables with the row and the factors of a fault, which steps read and do not write."""
        return self._row, *self._factors.values()

    def inject(self, row: int, factor: float, part: str = "gradient") -> None:
        """Multiplies a part of what a row of the global batch yields by `factor`, until `heal`.

        `part` is "gradient", but not the loss; "loss", but not its gradient; "metric", all metrics;
        or "statistic", all updates of moving statistics from the row's micro-batch.
        """
        self._row.assign(row)
        self._factors[part].assign(factor)

    def heal(self) -> None:
        """Removes the fault that `inject` set."""
        self._row.assign(-1)
        for factor in self._factors.values():
            factor.assign(1.0)

    def output_spec(self, source: Any) -> Any:
        """Returns the spec of the wrapped task."""
        return self.task.output_spec(source)

    def __call__(self, model: Any, batch: Any, context: Any) -> TaskOutput:
        """Returns the output of the wrapped task with the fault; see `Task`."""
        output = self.task(model, batch, context)
        self.drawn |= context.noise.drawn if context.noise else set()
        losses = output.losses
        if losses.shape.rank == 0:  # invalid for a task; L1 reports it
            losses = tf.broadcast_to(losses, tf.shape(batch.mask))
        rows = batch.row + tf.range(tf.shape(batch.mask)[0], dtype=tf.int64)
        gradient, loss, metric, statistic = (
            tf.where(rows == self._row, self._factors[part], 1.0) for part in self.PARTS
        )
        gradient, loss = (_of_rows(factor, losses) for factor in (gradient, loss))

        @tf.custom_gradient
        def faulty(losses: tf.Tensor) -> Any:
            return losses * loss, lambda upstream: upstream * gradient

        factor = tf.reduce_prod(statistic)
        context.updates[:] = [u._replace(value=u.value * factor) for u in context.updates]
        metrics = {name: (*arguments, metric) for name, arguments in output.metrics.items()}
        return output._replace(losses=faulty(losses), metrics=metrics)


def _of_rows(factor: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns the factors [rows] in the dtype of `values`, reshaped to broadcast to its shape."""
    shape = [-1] + [1] * ((values.shape.rank or 1) - 1)
    return tf.cast(tf.reshape(factor, shape), values.dtype)
