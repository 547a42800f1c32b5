"""Early stopping and selection of the best weights; `TrainState` has the counters.

The patience and the best weights follow the rules of Keras' EarlyStopping and ModelCheckpoint. They
have separate reference values: any improvement of the metric selects new best weights, but only an
improvement of more than `min_delta` resets the patience.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine.config.option import did_you_mean
from engine.core.options import MAX_KEEP_BEST
from engine.core.state import BestState, PatienceState
from engine.runtime.scalars import as_float64, as_int64


class MonitoredMetric(NamedTuple):
    """The split and the name of the monitored metric; its text is such as "validation_accuracy"."""

    split: str  # "train", or the name of a validation set
    name: str

    def __str__(self) -> str:
        return f"{self.split}_{self.name}"


class StopReason(enum.IntEnum):
    """Reason for stopping training early, as stored in `PatienceState.stopped`.

    NONE: training has not stopped early.
    """

    NONE = 0
    PATIENCE = 1  # no improvement
    TARGET = 2  # the target is reached
    BASELINE = 3  # the baseline is not reached in time


OPTIONS = {  # options that stop training, by reason
    StopReason.NONE: "",
    StopReason.PATIENCE: "patience",
    StopReason.TARGET: "stop_at",
    StopReason.BASELINE: "baseline",
}


class StopRules(NamedTuple):
    """Rules of early stopping in addition to the patience.

    Attributes:
      target: training stops once the best value of the metric is as good as this; None: training
        has no target.
      required: (value, step): training stops at an evaluation at `step` or later if the best value
        of the metric so far is worse than `value`; None: no value is required.
      min_steps: training does not stop early at an evaluation before this step.
    """

    target: float | None = None
    required: tuple[float, int] | None = None
    min_steps: int = 0


class Monitor:
    """Monitor of one metric: selects the best weights, and decides when to stop training early.

    Args:
      metric: split and name of the metric.
      min_delta: improvement, 0 or more, that must be exceeded to reset the patience.
      patience: number of evaluations without improvement before training stops, counted as in
        Keras; -1: missing improvement never stops training.
      higher_is_better: whether a higher value of the metric is better.
      rules: further rules of early stopping.

    Attributes:
      metric: the metric as text, such as "validation_accuracy".
      split: split of the metric, "train" or the name of a validation set.
    """

    def __init__(
        self,
        metric: MonitoredMetric,
        min_delta: float,
        patience: int,
        *,
        higher_is_better: bool,
        rules: StopRules = StopRules(),  # noqa: B008  # immutable
    ) -> None:
        self.metric, self._rules = str(metric), rules
        self.split, self._name = metric
        self._sign = 1.0 if higher_is_better else -1.0
        self._min_delta, self._patience = min_delta, patience

    def value(self, results: Mapping[str, Mapping[str, float]]) -> float:
        """Returns the monitored metric of an evaluation; `results` is {split: {metric: value}}."""
        return float(results[self.split][self._name])

    def _better(self, value: float, reference: float, margin: float) -> bool:
        """Returns whether `value` is better than `reference` by more than `margin`.

        Any number is better than a `reference` of nan; a `value` of nan is never better.
        """
        if math.isnan(reference):
            return not math.isnan(value)
        return self._sign * (value - self._sign * margin) > self._sign * reference

    def improves(self, value: float, reference: float) -> bool:
        """Returns whether `value` is better than `reference` by more than `min_delta`.

        Any number improves on a `reference` of nan; a `value` of nan never improves.
        """
        return self._better(value, reference, self._min_delta)

    def is_best(self, value: float, step: int, best: BestState) -> bool:
        """Returns whether `value` is the best so far; if so, assigns it and `step` to `best`.

        Any number is better than the initial value of `best`, nan; nan is never the best.
        """
        if not self._better(value, float(best.value), 0.0):
            return False
        best.value.assign(as_float64(value))
        best.step.assign(as_int64(step))
        return True

    def rank(self, value: float, step: int, best: BestState, keep: int) -> int:
        """Records an evaluation in the ranking of the `keep` best ones; returns its place.

        Of equal values, the earlier one is better; nan is never recorded. If `keep` is smaller than
        before, evaluations are removed from the end of the ranking.

        Args:
          value: monitored metric of the evaluation.
          step: step of the evaluation, which is after those in the ranking.
          best: best evaluations so far; `values` and `steps` are updated.
          keep: length of the ranking, from 1 to `MAX_KEEP_BEST`.

        Returns:
          The place in the ranking, from 1; 0 if the evaluation is not one of the `keep` best.
        """
        pairs = zip(best.values.numpy().tolist(), best.steps.numpy().tolist(), strict=True)
        ranking = [pair for pair in pairs if pair[1] >= 0]
        before = sum(not self._better(value, each, 0.0) for each, _ in ranking)
        if not math.isnan(value):
            ranking.insert(before, (value, step))
        ranking = ranking[:keep]
        unused = MAX_KEEP_BEST - len(ranking)
        values, steps = zip(*ranking, *[(math.nan, -1)] * unused, strict=True)
        best.values.assign(np.array(values, np.float64))
        best.steps.assign(np.array(steps, np.int64))
        return before + 1 if before < keep and not math.isnan(value) else 0

    def decide(
        self, value: float, step: int, first: bool, best: BestState, patience: PatienceState
    ) -> StopReason:
        """Updates the state of early stopping with an evaluation; returns why to stop, or NONE.

        Args:
          value: monitored metric of the evaluation.
          step: step of the evaluation.
          first: whether this is the evaluation of the initial weights or the first one after it;
            missing improvement does not stop training then, as in the first epoch in Keras.
          best: best evaluation so far, including this one; not changed.
          patience: state of early stopping, which is updated. A reason to stop that it has already
            is never reset to NONE.
        """
        waited = self._has_waited(value, patience) and not first
        reached, rules, reason = float(best.value), self._rules, StopReason.NONE
        if rules.target is not None and self._reaches(reached, rules.target):
            reason = StopReason.TARGET
        elif rules.required is not None and step >= rules.required[1]:
            missed = not self._reaches(reached, rules.required[0])
            reason = StopReason.BASELINE if missed else reason
        if waited and not reason:
            reason = StopReason.PATIENCE
        if reason and step >= rules.min_steps:
            patience.stopped.assign(int(reason))
        return StopReason(int(patience.stopped))

    def _has_waited(self, value: float, patience: PatienceState) -> bool:
        """Counts evaluations without improvement for the patience; returns whether they exhaust it.

        Does nothing and returns False if the patience is -1.
        """
        if self._patience < 0:
            return False
        if self.improves(value, float(patience.reference)):
            patience.reference.assign(as_float64(value))
            patience.wait.assign(0)
            return False
        patience.wait.assign_add(1)
        return int(patience.wait) >= self._patience

    def _reaches(self, value: float, target: float) -> bool:
        """Returns whether `value` is as good as `target`, or better; False for nan."""
        return self._sign * value >= self._sign * target


def resolve(
    monitor: str,
    metrics: Collection[str],
    validation_sets: Sequence[str],
    collected: Collection[str] = (),
    logged: Collection[str] = (),
) -> MonitoredMetric:
    """Resolves `--monitor` to a split and a metric.

    Args:
      monitor: value of `--monitor`. "auto" is the first metric on the first validation set, or its
        loss if the task has no metrics; without a validation set, the training loss.
      metrics: names of the metrics of the task, in order.
      validation_sets: names of the validation sets, in order.
      collected: names of the metrics that only evaluation computes, see `tl.metrics.collected`.
      logged: names of other numbers that are logged with the training metrics, such as
        "gradient_norm"; accepted after "train_".

    Raises:
      ValueError: if there is no metric or logged number of the name, or several; for a metric of a
        validation set if there is none; and for a metric of the training split that only evaluation
        computes.
    """
    if monitor == "auto":
        if not validation_sets:
            return MonitoredMetric("train", "loss")
        return MonitoredMetric(validation_sets[0], next(iter(metrics), "loss"))
    sets = validation_sets or ("validation",)
    names = ("loss", *metrics)
    known = [MonitoredMetric(split, name) for split in (*sets, "train") for name in names]
    known += [MonitoredMetric("train", name) for name in logged]
    absent = [MonitoredMetric("train", name) for name in collected]
    known = [each for each in known if each not in absent]
    found = [each for each in known if str(each) == monitor]
    if not found and monitor in map(str, absent):
        raise ValueError(
            f"--monitor={monitor}: only evaluation computes it, from a whole split; give "
            f"--monitor={sets[0]}_{monitor.removeprefix('train_')}"
        )
    if not found:
        texts = list(map(str, known))
        hint = did_you_mean(monitor, texts)
        raise ValueError(f"--monitor={monitor}: choose one of auto, {', '.join(texts)}{hint}")
    if len(found) > 1:
        one, other = (f"{name} of {split}" for split, name in found[:2])
        raise ValueError(
            f"--monitor={monitor}: may be {one} or {other}; give the validation set another name"
        )
    if found[0].split != "train" and not validation_sets:
        raise ValueError(
            f"--monitor={monitor}: there is no validation split; give --validation_split=0.1, or "
            "--monitor=train_loss"
        )
    return found[0]
