"""The end of an epoch: what came of it, and what follows from that."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from engine import metrics, stopping
from engine.assembly import Parts
from engine.keeping.clock import Clock
from engine.numerics.scalars import whole
from engine.training import narration
from engine.training.curves import Curves, standing
from engine.training.timetable import Timetable


class Ended(NamedTuple):
    """What came of an epoch.

    is_best: whether it is the best so far.
    lines: for a person.
    """

    is_best: bool
    lines: list[str]


class EpochEnd:
    """Evaluates, decides, writes: in this order, so that the checkpoint that follows has it all.

    Args:
      parts: of the run.
      timetable: of the run.
      clock: of the same state.
      curves: that are written.
    """

    def __init__(self, parts: Parts, timetable: Timetable, clock: Clock, curves: Curves) -> None:
        self._parts, self._state, self._options = parts, parts.state, parts.config.stopping
        self._timetable, self._clock, self._curves = timetable, clock, curves
        metric = stopping.resolve(self._options.monitor, "validation" in parts.evaluations)
        self.monitor = stopping.Monitor(metric, self._options.min_delta, self._options.patience)

    def within(self, interrupted: Callable[[], bool]) -> list[str] | None:
        """Shows where a command ends inside an epoch.

        Nothing is judged and the state stays as it is: a run that is lengthened later drops these
        rows and continues the epoch.

        Args:
          interrupted: asked now and then whether to stop.

        Returns:
          Lines for a person; None where it was interrupted.
        """
        results = self._results(interrupted)
        if results is None:
            return None
        point = standing(self._parts)
        if point.step > int(self._state.written):
            self._curves.passed([point], kept=False)
        if "validation" in results:
            self._curves.scored("validation", results["validation"])
        words = narration.results_line(
            results,
            steps_per_second=self._clock.steps_per_second,
            skipped=point.step - point.updates,
        )
        return [f"step {point.step:,}, inside epoch {self._timetable.epoch(point.step)}: {words}"]

    def _results(self, interrupted: Callable[[], bool]) -> dict[str, dict[str, float | int]] | None:
        """{split: means} of the epoch's steps so far and of what is held out to validate with."""
        sums = self._state.sums.numpy()
        results = {"train": metrics.step_means(sums, self._parts.task.metrics)}
        if "validation" in self._parts.evaluations:
            validation = self._parts.evaluations["validation"].run(interrupted)
            if validation is None:
                return None
            results["validation"] = validation
        return results

    def reason_to_stop(self) -> str:
        """Says why training has ended early."""
        return (
            f"{self.monitor.metric} did not improve by more than {self._options.min_delta:g} for "
            f"{int(self._state.patience.waited)} epochs"
        )

    def run(self, interrupted: Callable[[], bool]) -> Ended | None:
        """Deals with the epoch that the run stands at the end of.

        Args:
          interrupted: asked now and then whether to stop.

        Returns:
          The decision and lines about it; None where it was interrupted: call it again then.
        """
        state, step = self._state, int(self._state.step)
        results = self._results(interrupted)
        if results is None:
            return None
        self._curves.passed([standing(self._parts)])
        if self._parts.config.keeping.histograms:
            self._curves.weights()
        if "validation" in results:
            self._curves.scored("validation", results["validation"])
        epoch = self._timetable.epoch(step)
        value, previous = self.monitor.value(results), float(state.best.value)
        is_best = self.monitor.is_best(value, step, state.best)
        stop = self.monitor.should_stop(value, epoch == 1, state.patience)
        state.ended.assign(whole(step))
        state.sums.assign(tf.zeros_like(state.sums))
        state.logged.assign(tf.zeros_like(state.logged))
        line = narration.epoch_line(
            f"{epoch}/{self._timetable.epochs}",
            results,
            steps_per_second=self._clock.steps_per_second,
            metric=self.monitor.metric,
            best=float(state.best.value),
            before=previous if is_best else None,
            saved_to=os.path.join(self._parts.config.run.run_dir, "best"),
            skipped=step - int(state.updates),
        )
        stopped = f"stopped early after epoch {epoch}: {self.reason_to_stop()}"
        return Ended(is_best, [line, stopped] if stop else [line])
