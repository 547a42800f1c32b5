"""Log points: the steps at which training metrics are logged, and the values that are logged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

NEVER = 1 << 62
MOST = 128  # maximum number of log points in one call of the graph
_MOST_VALUES = 1 << 20  # maximum number of values logged in one call, if that is not one log point


def most_points(sums: int) -> int:
    """Returns the maximum number of log points in one call of the graph, 1 or more.

    `sums` is the number of metric sums that are logged at each log point.
    """
    return max(1, min(MOST, _MOST_VALUES // sums))


class LogPoints(NamedTuple):
    """Steps at which metrics are logged, as numbers of steps since the start of the run."""

    every: int = NEVER  # each multiple of it is a log point
    last: int = NEVER  # one more log point, beyond which no call takes steps

    def after(self, step: int) -> int:
        """Returns the number of steps from `step` to the next log point, 1 or more.

        Raises:
          ValueError: if `last` is not after `step`, or if `every` is below 1.
        """
        if self.every < 1 or self.last <= step:
            raise ValueError(f"no point of {self} is ahead of step {step}")
        return min(self.every - step % self.every, self.last - step)

    def most_steps(self, step: int, points: int = MOST) -> int:
        """Returns the number of steps from `step` to the `points`-th log point after it.

        Log points after the first are taken to be `every` steps apart, so the result may go beyond
        `last`, at which the caller must stop.

        Raises:
          ValueError: if `last` is not after `step`, or if `every` is below 1.
        """
        return self.after(step) + (points - 1) * self.every


class LogPoint(NamedTuple):
    """Counters, loss scale, learning rate and metric sums at a log point."""

    step: int  # number of steps taken
    updates: int  # number of those that updated the weights
    loss_scale: float  # after the last step
    learning_rate: float  # of the last step
    sums: np.ndarray  # float64 [metrics.size + 2], as TrainState.sums

    @classmethod
    def unpack(cls, row: np.ndarray) -> LogPoint:
        """Returns the `LogPoint` that `pack` has packed into `row`, float64 [4 + sums].

        Step numbers up to 2^53 are exact.
        """
        step, updates, scale, rate, *sums = row.tolist()
        return cls(int(step), int(updates), scale, rate, np.array(sums))


def pack(*scalars: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:
    """Returns the fields of a `LogPoint`, in order, as a vector, float64 [4 + sums].

    Called in the graph.

    Args:
      *scalars: the fields before `sums`, in order, each of shape [] and any numeric dtype.
      sums: the field `sums`, float64.
    """
    return tf.concat([tf.stack([tf.cast(each, tf.float64) for each in scalars]), sums], 0)
