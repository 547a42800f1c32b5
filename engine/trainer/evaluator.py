"""Evaluates during training; logs, selects the best weights and decides on early stopping."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from engine.assembly.parts import Parts
from engine.core import early_stopping, metrics
from engine.core.early_stopping import StopReason, StopRules
from engine.logging.throughput import ThroughputMeter
from engine.runtime.scalars import as_int64
from engine.trainer import console
from engine.trainer.train_logging import TrainLogger, current_log_point
from engine.trainer.triggers import Triggers

_LOGGED = ("gradient_norm", "learning_rate", "skipped_steps")  # with the training metrics


class EvaluationResult(NamedTuple):
    """Result of an evaluation: whether it is one of the best so far, and the messages to print."""

    place: int  # among the --keep_best best evaluations, from 1; 0: it is none of them
    lines: list[str]  # to print


class Evaluator:
    """Evaluator of a run, which updates best weights, early stopping and plateau schedule.

    Args:
      parts: the run.
      triggers: schedule of the run, which gives the steps of the evaluations.
      meter: measures the throughput.
      train_logger: writes the metrics.
      interrupted: returns whether to stop; called before each call of the evaluation graph.

    Attributes:
      monitor: monitor of the metric that selects the best weights.

    Raises:
      ValueError: if `--monitor` names a metric or split that does not exist, or a metric of the
        training split that only evaluation computes.
    """

    def __init__(
        self,
        parts: Parts,
        triggers: Triggers,
        meter: ThroughputMeter,
        train_logger: TrainLogger,
        interrupted: Callable[[], bool],
    ) -> None:
        self._parts, self._state, self._options = parts, parts.state, parts.config.stopping
        self._triggers, self._meter, self._train_logger = triggers, meter, train_logger
        self._interrupted = interrupted
        self._sets = tuple(parts.source.validation_sets)
        task_metrics, options = parts.task.metrics, self._options
        monitor = early_stopping.resolve(
            options.monitor,
            task_metrics,
            self._sets,
            collected=task_metrics.keys() - metrics.summed(task_metrics).keys(),
            logged=[*_LOGGED, *["loss_scale"] * parts.state.loss_scale.dynamic],
        )
        measured = task_metrics.get(monitor.name)  # None: the loss
        self.monitor = early_stopping.Monitor(
            monitor,
            options.min_delta,
            options.patience,
            higher_is_better=measured is not None and measured.better == "higher",
            rules=StopRules(
                options.target, options.required, options.min_epochs * parts.steps_per_epoch
            ),
        )

    def run(self) -> EvaluationResult | None:
        """Evaluates and logs; updates the best weights, early stopping and the plateau schedule.

        The training metrics are those of the steps since the evaluation before; their sums in the
        state are reset. The caller must save a checkpoint afterwards, so that it has all changes.
        At step 0, there are no training metrics: if `--monitor` is one of them, the best weights,
        early stopping and the plateau schedule do not change.

        Returns:
          Whether the weights are among the best so far, and messages; None if a signal stopped the
          evaluation, before any change.

        Raises:
          OSError: if the metrics cannot be written.
          RuntimeError, ValueError, AssertionError: as in `Evaluation.run`.
        """
        state, step = self._state, int(self._state.step)
        results = self._results()
        if results is None:
            return None
        watched = dict(results)
        if step:
            logged = self._train_logger.passed([current_log_point(self._parts)])
            watched["train"] = {**logged, **results["train"]}
        if self._parts.config.logging.histograms:
            self._train_logger.weights()
        self._log_scores(results)
        place, stop, comparison, reduced = 0, StopReason.NONE, "", 0.0
        if self.monitor.split in watched:
            value, previous = self.monitor.value(watched), float(state.best.value)
            self.monitor.is_best(value, step, state.best)
            keep = self._parts.config.checkpoints.keep_best
            place = self.monitor.rank(value, step, state.best, keep)
            first = step <= self._triggers.evaluate_every
            stop = self.monitor.decide(value, step, first, state.best, state.patience)
            comparison = self._comparison(place, previous)
            plateau = self._parts.schedule.plateau
            if plateau is not None and plateau.update(value, self.monitor.improves):
                reduced = self._parts.schedule.learning_rate * float(plateau.factor)
        state.last_evaluation_step.assign(as_int64(step))
        state.sums.assign(tf.zeros_like(state.sums))
        state.last_logged_sums.assign(tf.zeros_like(state.last_logged_sums))
        lines = [f"{self._where(step)}: {self._line(results, comparison)}"]
        if reduced:
            lines.append(f"learning rate reduced to {reduced:.3g}")
        if stop:
            lines.append(f"stopped early after {self._stopped(step)}: {self.reason_to_stop()}")
        return EvaluationResult(place, lines)

    def run_at_end(self) -> str | None:
        """Evaluates and logs at the end of training, if no evaluation is due there.

        The training state, with best weights and early stopping, is not changed. If the run is
        extended later, the resumed run removes the logged rows and continues to the next
        evaluation.

        Returns:
          A message with the metrics; None if a signal stopped the evaluation.

        Raises:
          OSError: if the metrics cannot be written.
          RuntimeError, ValueError, AssertionError: as in `Evaluation.run`.
        """
        results = self._results()
        if results is None:
            return None
        point = current_log_point(self._parts)
        if point.step > int(self._state.last_logged_step):
            self._train_logger.passed([point], kept=False)
        self._log_scores(results)
        place = f"epoch {self._triggers.epoch(point.step)}/{self._triggers.epochs}"
        return f"step {point.step:,}, {place}, end of the training: {self._line(results)}"

    def reason_to_stop(self) -> str:
        """Returns why training has stopped early, as text; "" if it has not."""
        metric, options, wait = self.monitor.metric, self._options, int(self._state.patience.wait)
        required, _, step = options.baseline.partition(":")
        unit = ("epoch" if self._by_epochs else "evaluation") + "s" * (wait != 1)
        return {
            StopReason.NONE: "",
            StopReason.PATIENCE: (
                f"{metric} did not improve by more than {options.min_delta:g} for {wait} {unit}"
            ),
            StopReason.TARGET: f"{metric} reached --stop_at={options.stop_at}",
            StopReason.BASELINE: (
                f"{metric} did not reach {required} by step {step}, as --baseline requires"
            ),
        }[self.stopped]

    @property
    def stopped(self) -> StopReason:
        """Reason why training has stopped early; `StopReason.NONE` if it has not."""
        return StopReason(int(self._state.patience.stopped))

    @property
    def _by_epochs(self) -> bool:
        return self._parts.config.evaluation.evaluate_every == "epoch"

    def _where(self, step: int) -> str:
        """Returns text about an evaluation's step, such as "epoch 1/2" or "initial weights"."""
        if not step:
            return "initial weights"
        epoch = f"epoch {self._triggers.epoch(step)}/{self._triggers.epochs}"
        return epoch if self._by_epochs else f"step {step:,}, {epoch}"

    def _stopped(self, step: int) -> str:
        return f"epoch {self._triggers.epoch(step)}" if self._by_epochs else f"step {step:,}"

    def _results(self) -> dict[str, dict[str, float | int]] | None:
        """Returns {split: {metric: value}} of training and validation; None if a signal stops it.

        "train" has the metrics of the steps since the last evaluation; it is absent at step 0. The
        validation sets follow by name.
        """
        results: dict[str, dict[str, float | int]] = {}
        if int(self._state.step):
            sums = self._state.sums.numpy()
            results["train"] = metrics.step_means(sums, self._parts.task.metrics)
        for name in self._sets:
            means = self._parts.evaluations[name].run(self._interrupted)
            if means is None:
                return None
            results[name] = means
        return results

    def _log_scores(self, results: dict[str, dict[str, float | int]]) -> None:
        """Writes a row for each validation set; `results` as `_results` returns it."""
        for name in self._sets:
            self._train_logger.scored(name, results[name])

    def _comparison(self, place: int, previous: float) -> str:
        metric, best = self.monitor.metric, float(self._state.best.value)
        saved_to = os.path.join(self._parts.config.run.run_dir, "best")
        if place != 1:
            kept = f", number {place} of the best, saved to {saved_to}" if place else ""
            return f"{metric} did not improve on {best:.4f}{kept}" if math.isfinite(best) else ""
        digits = next((d for d in range(4, 9) if f"{previous:.{d}f}" != f"{best:.{d}f}"), 9)
        change = "" if math.isnan(previous) else f"improved, {previous:.{digits}f} to "
        return f"{metric} {change}{best:.{digits}f}, saved to {saved_to}"

    def _line(self, results: dict[str, dict[str, float | int]], comparison: str = "") -> str:
        return console.results_line(
            results,
            self._parts.task.metrics,
            steps_per_second=self._meter.steps_per_second if int(self._state.step) else None,
            skipped=int(self._state.step) - int(self._state.updates),
            comparison=comparison,
        )
