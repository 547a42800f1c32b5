"""A task wrapper that makes loss, gradient, metrics or statistics of one row infinite or nan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from engine.core.metrics import summed
from engine.tasks.metrics import Metric
from engine.tasks.task import Task, TaskOutput


class _FaultyMetric(Metric):
    """Metric wrapper that multiplies a metric's sums by factors, the last argument of `sums`."""

    def __init__(self, metric: Metric) -> None:
        self.size, self.better, self.float64 = metric.size, metric.better, metric.float64
        self.percentage, self._metric = metric.percentage, metric
        self.result = metric.result  # type: ignore[method-assign]

    def sums(self, weights: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        """Returns the metric's sums times the product of the factors, float64 [size].

        The last of the `arguments` is the factors, float32 [rows]; the factors of rows of weight 0,
        such as padding, are left out.
        """
        *arguments, factors = arguments  # type: ignore[assignment]
        factor = tf.reduce_prod(tf.where(weights > 0, factors, 1.0))
        return self._metric.sums(weights, *arguments) * tf.cast(factor, tf.float64)


class FaultInjectingTask(Task):
    """Task wrapper that can make a part of one row's results, one of `PARTS`, infinite or nan.

    `inject` sets a fault. Without a fault, each part is multiplied by 1, which changes no bit.
    """

    PARTS = ("gradient", "loss", "metric", "statistic")

    def __init__(self, task: Task) -> None:
        self._summed = {n: _FaultyMetric(each) for n, each in summed(task.metrics).items()}
        self.metrics: Mapping[str, Metric] = {**task.metrics, **self._summed}
        self.task, self.averages_views = task, task.averages_views
        self.drawn: set[str] = set()  # kinds of random numbers that traced training steps draw
        # On each local device: a program that XLA compiled reads no variable of another device.
        self._rows: dict[str, tf.Variable] = {}
        self._factors: dict[str, dict[str, tf.Variable]] = {}
        devices = (_local(device.name) for device in tf.config.list_logical_devices())
        for name in dict.fromkeys(name for name in devices if "CPU" in name or "GPU" in name):
            with tf.device(name):
                self._rows[name] = tf.Variable(-1, dtype=tf.int64, trainable=False)
                self._factors[name] = {
                    part: tf.Variable(1.0, trainable=False) for part in self.PARTS
                }

    @property
    def switches(self) -> tuple[tf.Variable, ...]:
        """Variables of the row and the factors of a fault, which steps read and do not write."""
        return tuple(tf.nest.flatten([self._rows, self._factors]))

    def inject(self, row: int, factor: float, part: str = "gradient") -> None:
        """Multiplies a part of the results for one row of the batch by `factor`, until `heal`.

        Args:
          row: row in the global batch, from 0.
          factor: factor of the part, such as infinity or nan.
          part: "gradient" (without the loss), "loss" (without the gradient), "metric" (all metrics
            that are computed from sums) or "statistic" (all updates of moving statistics from the
            row's micro-batch).
        """
        for device, variable in self._rows.items():
            variable.assign(row)
            self._factors[device][part].assign(factor)

    def heal(self) -> None:
        """Removes the faults that `inject` has set."""
        for row in self._rows.values():
            row.assign(-1)
        for factor in tf.nest.flatten(self._factors):
            factor.assign(1.0)

    def output_spec(self, source: Any) -> Any:
        """Returns the spec of the model's outputs, as the wrapped task does."""
        return self.task.output_spec(source)

    def __call__(self, model: Any, batch: Any, context: Any) -> TaskOutput:
        """Returns the output of the wrapped task, with the fault if one is set; see `Task`.

        Also applies the fault to `context.updates`, and adds to `drawn` the kinds of random numbers
        drawn. A scalar loss, which is invalid, is repeated for all rows.
        """
        output = self.task(model, batch, context)
        self.drawn |= context.noise.drawn if context.noise else set()
        losses = output.losses
        if losses.shape.rank == 0:  # invalid for a task; L1 reports it
            losses = tf.broadcast_to(losses, tf.shape(batch.mask))
        rows = batch.row + tf.range(tf.shape(batch.mask)[0], dtype=tf.int64)
        device = self._device()
        gradient, loss, metric, statistic = (
            tf.where(rows == self._rows[device], self._factors[device][part], 1.0)
            for part in self.PARTS
        )
        gradient, loss = (_of_rows(factor, losses) for factor in (gradient, loss))

        @tf.custom_gradient
        def faulty(losses: tf.Tensor) -> Any:
            return losses * loss, lambda upstream: upstream * gradient

        factor = tf.reduce_prod(statistic)
        context.updates[:] = [u._replace(value=u.value * factor) for u in context.updates]
        metrics = {
            name: (*output.metrics[name], metric) for name in self._summed if name in output.metrics
        }
        return output._replace(losses=faulty(losses), metrics={**output.metrics, **metrics})

    def _device(self) -> str:
        """Returns the name of the current replica's device, or of TensorFlow's default device."""
        context = tf.distribute.get_replica_context()
        default = min(self._rows, key=lambda name: "GPU" not in name)  # the first GPU, if any
        if context is None or not tf.distribute.has_strategy():
            return default
        # The devices are those of this worker, the number of the replica is among all workers.
        devices = context.strategy.extended.worker_devices
        replica = tf.get_static_value(context.replica_id_in_sync_group) or 0
        name = _local(str(devices[int(replica) % len(devices)]))
        return name if name in self._rows else default


def _local(device: str) -> str:
    """Returns the name of a device without its machine, such as "/device:CPU:0"."""
    return f"/device:{device.rpartition('/device:')[2]}"


def _of_rows(factor: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns `factor`, [rows], in the dtype and, as [rows, 1, ...], the rank of `values`."""
    shape = [-1] + [1] * ((values.shape.rank or 1) - 1)
    return tf.cast(tf.reshape(factor, shape), values.dtype)
