"""Runs the end of an epoch: evaluation, logging, selection of the best epoch, early stopping."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from engine.assembly.parts import Parts
from engine.core import early_stopping, metrics
from engine.logging.throughput import ThroughputMeter
from engine.runtime.scalars import as_int64
from engine.trainer import console
from engine.trainer.train_logging import TrainLogger, current_log_point
from engine.trainer.triggers import Triggers


class EpochResult(NamedTuple):
    """The result of `EpochEnd.run`.

    Attributes:
      is_best: whether the monitored metric is the best so far.
      lines: lines for the user.
    """

    is_best: bool
    lines: list[str]


class EpochEnd:
    """Evaluates and logs an epoch, and updates the best epoch and early stopping.

    It runs before the checkpoint of the epoch is saved, so that the checkpoint contains these
    updates.

    Args:
      parts: components of the run.
      triggers: triggers of the run, which also compute the epoch of a step.
      meter: throughput meter of the run.
      train_logger: logger of the metrics.
    """

    def __init__(
        self, parts: Parts, triggers: Triggers, meter: ThroughputMeter, train_logger: TrainLogger
    ) -> None:
        self._parts, self._state, self._options = parts, parts.state, parts.config.stopping
        self._triggers, self._meter, self._train_logger = triggers, meter, train_logger
        metric = early_stopping.resolve(
            self._options.monitor, parts.task.metrics, "validation" in parts.evaluations
        )
        self.monitor = early_stopping.Monitor(
            metric, self._options.min_delta, self._options.patience
        )

    def within(self, interrupted: Callable[[], bool]) -> list[str] | None:
        """Evaluates and logs at the end of a command that ends inside an epoch.

        This changes neither the training state, nor the best epoch, nor early stopping. If the run
        is extended later, it drops these rows and continues the epoch.

        Args:
          interrupted: callback that returns whether to stop; called between two calls of the graph.

        Returns:
          Lines for the user; None if interrupted.
        """
        results = self._results(interrupted)
        if results is None:
            return None
        point = current_log_point(self._parts)
        if point.step > int(self._state.last_logged_step):
            self._train_logger.passed([point], kept=False)
        if "validation" in results:
            self._train_logger.scored("validation", results["validation"])
        words = console.results_line(
            results,
            steps_per_second=self._meter.steps_per_second,
            skipped=point.step - point.updates,
        )
        return [f"step {point.step:,}, inside epoch {self._triggers.epoch(point.step)}: {words}"]

    def _results(self, interrupted: Callable[[], bool]) -> dict[str, dict[str, float | int]] | None:
        """Returns {split: means} of the epoch so far and of validation; None if interrupted."""
        sums = self._state.sums.numpy()
        results = {"train": metrics.step_means(sums, self._parts.task.metrics)}
        if "validation" in self._parts.evaluations:
            validation = self._parts.evaluations["validation"].run(interrupted)
            if validation is None:
                return None
            results["validation"] = validation
        return results

    def reason_to_stop(self) -> str:
        """Returns the reason for early stopping, as text."""
        return (
            f"{self.monitor.metric} did not improve by more than {self._options.min_delta:g} for "
            f"{int(self._state.patience.wait)} epochs"
        )

    def run(self, interrupted: Callable[[], bool]) -> EpochResult | None:
        """Evaluates and logs an epoch at its end; updates the best epoch and early stopping.

        Args:
          interrupted: callback that returns whether to stop; called between two calls of the graph.

        Returns:
          The result of the epoch; None if interrupted, in which case the resumed run repeats the
          call.
        """
        state, step = self._state, int(self._state.step)
        results = self._results(interrupted)
        if results is None:
            return None
        self._train_logger.passed([current_log_point(self._parts)])
        if self._parts.config.logging.histograms:
            self._train_logger.weights()
        if "validation" in results:
            self._train_logger.scored("validation", results["validation"])
        epoch = self._triggers.epoch(step)
        value, previous = self.monitor.value(results), float(state.best.value)
        is_best = self.monitor.is_best(value, step, state.best)
        stop = self.monitor.should_stop(value, epoch == 1, state.patience)
        state.last_epoch_end_step.assign(as_int64(step))
        state.sums.assign(tf.zeros_like(state.sums))
        state.last_logged_sums.assign(tf.zeros_like(state.last_logged_sums))
        line = console.epoch_line(
            f"{epoch}/{self._triggers.epochs}",
            results,
            steps_per_second=self._meter.steps_per_second,
            metric=self.monitor.metric,
            best=float(state.best.value),
            before=previous if is_best else None,
            saved_to=os.path.join(self._parts.config.run.run_dir, "best"),
            skipped=step - int(state.updates),
        )
        stopped = f"stopped early after epoch {epoch}: {self.reason_to_stop()}"
        return EpochResult(is_best, [line, stopped] if stop else [line])
