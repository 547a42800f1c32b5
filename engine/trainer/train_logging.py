"""Logs training metrics as means since the previous log point, and evaluation metrics."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from engine.assembly.parts import Parts
from engine.core import metrics
from engine.core.log_points import LogPoint
from engine.logging.metric_writer import MetricRow, MetricWriter
from engine.logging.throughput import ThroughputMeter
from engine.runtime.scalars import as_int64
from engine.trainer.triggers import Triggers


def current_log_point(parts: Parts) -> LogPoint:
    """Returns a log point of the training state at its current step, which must be 1 or more."""
    state, step = parts.state, int(parts.state.step)
    return LogPoint(
        step=step,
        updates=int(state.updates),
        loss_scale=float(state.loss_scale.value),
        learning_rate=float(parts.schedule(tf.constant(as_int64(step - 1)))),
        sums=state.sums.numpy(),
    )


def metric_rows(
    parts: Parts, points: list[LogPoint], *, kept: bool = True
) -> list[tuple[int, dict[str, float | int]]]:
    """Returns (step, {name: value}) for each log point.

    The values are the mean loss, the metrics, the mean gradient norm and the number of examples,
    all since the previous log point; the learning rate; the loss scale if it is dynamic; and the
    number of steps so far that did not update the weights.

    Args:
      parts: the run, whose state stores the sums at the last log point.
      points: 1 or more log points between two evaluations, in order, after the last one that is
        stored.
      kept: whether the state then stores the last of `points`, from which the next means start. If
        False, the state is not changed, and a resumed run removes the rows.
    """
    state, rows = parts.state, []
    logged = state.last_logged_sums.numpy()
    for point in points:
        values = metrics.step_means(point.sums - logged, parts.task.metrics)
        values["learning_rate"] = point.learning_rate
        if state.loss_scale.dynamic:
            values["loss_scale"] = point.loss_scale
        values["skipped_steps"] = point.step - point.updates
        rows.append((point.step, values))
        logged = point.sums
    if kept:
        state.last_logged_sums.assign(logged)
        state.last_logged_step.assign(as_int64(points[-1].step))
    return rows


class TrainLogger:
    """Writer of training metrics, evaluation metrics and weight histograms of a run."""

    def __init__(
        self, parts: Parts, metric_writer: MetricWriter, meter: ThroughputMeter, triggers: Triggers
    ) -> None:
        self._parts, self._metric_writer = parts, metric_writer
        self._meter, self._triggers = meter, triggers

    def passed(self, points: list[LogPoint], *, kept: bool = True) -> dict[str, float | int]:
        """Writes a row of training metrics for each log point; arguments as in `metric_rows`.

        A row has the values of `metric_rows` and the steps per second; for TensorBoard, also the
        examples per second, the share of time spent waiting for data since the last rows, goodput,
        restarts and lost steps.

        Returns:
          The values of `metric_rows` of the last row, {name: value}.

        Raises:
          OSError: if the rows cannot be written.
        """
        rate = self._meter.steps_per_second
        batch_size = len(self._parts.source.train) / self._parts.steps_per_epoch
        clock = {"examples_per_second": rate * batch_size, **self._meter.figures}
        if (input_wait := self._meter.input_wait()) is not None:
            clock["input_wait"] = input_wait
        values_of = metric_rows(self._parts, points, kept=kept)
        rows = [
            MetricRow(step, self._triggers.epoch(step), values | {"steps_per_second": rate}, clock)
            for step, values in values_of
        ]
        self._metric_writer.write("train", rows)
        return values_of[-1][1]

    def scored(self, split: str, means: Mapping[str, float | int]) -> None:
        """Writes `means`, the metrics of an evaluated split, for the current step.

        Raises:
          OSError: if the row cannot be written.
        """
        step = int(self._parts.state.step)
        self._metric_writer.write(split, [MetricRow(step, self._triggers.epoch(step), means)])

    def weights(self) -> None:
        """Writes a histogram of each variable of the model for the current step, to TensorBoard.

        Raises:
          OSError: if the histograms cannot be written.
        """
        values = {f"weights/{v.name.split(':')[0]}": v.numpy() for v in self._parts.model.variables}
        self._metric_writer.histograms(int(self._parts.state.step), values)
