"""Early stopping and selection of the best weights, by Keras' rules; `TrainState` has the counters.

Early stopping and the best weights have separate reference values: any improvement of the metric
selects new best weights, but only an improvement of more than `min_delta` resets the patience.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from engine.config.option import did_you_mean
from engine.core.state import BestState, PatienceState
from engine.runtime.scalars import as_float64, as_int64


class Monitor:
    """Monitor of one metric: selects the best weights, and decides when to stop training early.

    Args:
      metric: split, underscore and metric, for example "validation_accuracy".
      min_delta: improvement, 0 or more, that must be exceeded to reset the patience.
      patience: number of epochs without improvement before training stops, counted as in Keras; -1:
        training never stops early.
      higher_is_better: whether a higher value of the metric is better.
    """

    def __init__(
        self, metric: str, min_delta: float, patience: int, *, higher_is_better: bool
    ) -> None:
        self.metric = metric
        self.split, self._name = metric.split("_", 1)
        self._sign = 1.0 if higher_is_better else -1.0
        self._min_delta, self._patience = min_delta, patience

    def value(self, results: Mapping[str, Mapping[str, float]]) -> float:
        """Returns the monitored metric of an epoch; `results` is {split: {metric: value}}."""
        return float(results[self.split][self._name])

    def _better(self, value: float, reference: float, margin: float) -> bool:
        """Returns whether `value` is better than `reference` by more than `margin`.

        Any number is better than a `reference` of nan; a `value` of nan is never better.
        """
        if math.isnan(reference):
            return not math.isnan(value)
        return self._sign * (value - self._sign * margin) > self._sign * reference

    def is_best(self, value: float, step: int, best: BestState) -> bool:
        """Returns whether `value` is the best so far; if so, assigns it and `step` to `best`."""
        if not self._better(value, float(best.value), 0.0):
            return False
        best.value.assign(as_float64(value))
        best.step.assign(as_int64(step))
        return True

    def should_stop(self, value: float, first_epoch: bool, patience: PatienceState) -> bool:
        """Updates the state of early stopping with the metric of an epoch; returns whether to stop.

        Args:
          value: monitored metric of the epoch.
          first_epoch: whether this is the first epoch of the run; as in Keras, training does not
            stop at the end of that epoch.
          patience: state of early stopping, which is updated unless the patience is -1.

        Returns:
          Whether to stop training; once this is True, it is True for all later epochs.
        """
        if self._patience < 0:
            return False
        if self._better(value, float(patience.reference), self._min_delta):
            patience.reference.assign(as_float64(value))
            patience.wait.assign(0)
        else:
            patience.wait.assign_add(1)
            if int(patience.wait) >= self._patience and not first_epoch:
                patience.stopped.assign(1)
        return bool(int(patience.stopped))


def resolve(
    monitor: str, metrics: Collection[str], has_validation: bool, collected: Collection[str] = ()
) -> str:
    """Resolves `--monitor` to the name of a split and a metric, such as "validation_accuracy".

    Args:
      monitor: value of `--monitor`. "auto" is the first metric on the validation split, or the
        validation loss if the task has no metrics; without a validation split, the training loss.
      metrics: names of the metrics of the task, in order.
      has_validation: whether there is a validation split.
      collected: names of the metrics that only evaluation computes, see `tl.metrics.collected`.

    Raises:
      ValueError: if the task has no such metric, for a metric of the validation split if there is
        no such split, and for a metric of the training split that only evaluation computes.
    """
    if monitor == "auto":
        first = next(iter(metrics), "loss")
        return f"validation_{first}" if has_validation else "train_loss"
    known = [f"{split}_{name}" for split in ("validation", "train") for name in ("loss", *metrics)]
    absent = [f"train_{name}" for name in collected]
    known = [each for each in known if each not in absent]
    if monitor in absent:
        raise ValueError(
            f"--monitor={monitor}: only evaluation computes it, from a whole split; give "
            f"--monitor=validation_{monitor.removeprefix('train_')}"
        )
    if monitor not in known:
        hint = did_you_mean(monitor, known)
        raise ValueError(f"--monitor={monitor}: choose one of auto, {', '.join(known)}{hint}")
    if monitor.startswith("validation_") and not has_validation:
        raise ValueError(
            f"--monitor={monitor}: there is no validation split; give --validation_split=0.1, or "
            "--monitor=train_loss"
        )
    return monitor
