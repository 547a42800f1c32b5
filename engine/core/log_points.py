"""Log points: the steps at which training metrics are logged, and the values that are logged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

NEVER = 1 << 62
MOST = 128  # maximum number of log points in one call of the graph
_MOST_VALUES = 1 << 20  # maximum number of values logged in one call, if that is not one log point


def most_points(sums: int) -> int:
    """Returns the maximum number of log points in one call, for a number of sums at each."""
    return max(1, min(MOST, _MOST_VALUES // sums))


class LogPoints(NamedTuple):
    """The steps of a graph call at which metrics are logged; counted from the start of the run."""

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
        """Returns the number of steps from `step` to the `points`-th log point after it."""
        return self.after(step) + (points - 1) * self.every


class LogPoint(NamedTuple):
    """Counters, loss scale, learning rate and metric sums at a log point."""

    step: int  # number of steps taken
    updates: int  # number of those that updated the weights
    loss_scale: float  # after the last step
    learning_rate: float  # of the last step
    sums: np.ndarray  # float64 [4 + metrics], over the epoch so far, as TrainState.sums

    @classmethod
    def unpack(cls, row: np.ndarray) -> LogPoint:
        """Returns the LogPoint of a vector from `pack`; step numbers up to 2^53 are exact."""
        step, updates, scale, rate, *sums = row.tolist()
        return cls(int(step), int(updates), scale, rate, np.array(sums))


def pack(*scalars: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:
    """Returns the fields of a LogPoint, in order, as float64 [4 + len(sums)]; in the graph."""
    return tf.concat([tf.stack([tf.cast(each, tf.float64) for each in scalars]), sums], 0)
