"""Early stopping and the best epoch; their counters live in the state (L5).

The rules are those of Keras's EarlyStopping and of its best-only ModelCheckpoint. They keep two
references, on purpose: the best weights are the best by however little, while patience waits for
an improvement of more than `min_delta`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from engine.numerics.scalars import real, whole
from engine.state import Best, Patience


class Monitor:
    """Judges an epoch by one metric.

    Args:
      metric: "validation_accuracy" and the like: the split, an underscore, the metric.
      min_delta: 0 or more; patience counts an improvement of no more than this as none.
      patience: epochs without improvement before stopping, as Keras counts them; -1: never stop.
    """

    def __init__(self, metric: str, min_delta: float, patience: int) -> None:
        self.metric = metric
        self._split, self._name = metric.split("_", 1)
        self._sign = 1.0 if "accuracy" in metric else -1.0
        self._min_delta, self._patience = min_delta, patience

    def value(self, results: Mapping[str, Mapping[str, float]]) -> float:
        """The monitored value out of {split: {metric: value}}."""
        return float(results[self._split][self._name])

    def _better(self, value: float, reference: float, margin: float) -> bool:
        """Whether `value` beats `reference` by more than `margin`; a nan never does."""
        if math.isnan(reference):
            return not math.isnan(value)
        return self._sign * (value - self._sign * margin) > self._sign * reference

    def is_best(self, value: float, step: int, best: Best) -> bool:
        """Records the value when it is the best so far, and says whether it is."""
        if not self._better(value, float(best.value), 0.0):
            return False
        best.value.assign(real(value))
        best.step.assign(whole(step))
        return True

    def should_stop(self, value: float, first_epoch: bool, patience: Patience) -> bool:
        """Counts the epoch; records and says whether training ends.

        Args:
          value: of the monitored metric in this epoch.
          first_epoch: Keras never stops after the first one.
          patience: the counters, in the state.
        """
        if self._patience < 0:
            return False
        if self._better(value, float(patience.reference), self._min_delta):
            patience.reference.assign(real(value))
            patience.waited.assign(0)
        else:
            patience.waited.assign_add(1)
            if int(patience.waited) >= self._patience and not first_epoch:
                patience.stopped.assign(1)
        return bool(int(patience.stopped))


def resolve(monitor: str, has_validation: bool) -> str:
    """The metric that `--monitor` means.

    Raises:
      ValueError: when it is measured on a validation split that there is not.
    """
    if monitor == "auto":
        return "validation_accuracy" if has_validation else "train_loss"
    if monitor.startswith("validation_") and not has_validation:
        raise ValueError(
            f"--monitor={monitor}: there is no validation split; give --validation_split=0.1, or "
            "--monitor=train_loss"
        )
    return monitor
