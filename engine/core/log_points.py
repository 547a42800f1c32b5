"""Log points: the steps at which training metrics are logged, and the row that is logged there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

NEVER = 1 << 62
MOST = 128  # log points that one call of the graph has room for


class LogPoints(NamedTuple):
    """Which steps are log points, by the number of steps taken then.

    Attributes:
      every: all multiples of this number.
      last: one more, which no call goes beyond.
    """

    every: int = NEVER
    last: int = NEVER

    def after(self, step: int) -> int:
        """Returns the number of steps from `step` to the next log point, 1 or more.

        Raises:
          ValueError: when `last` is not ahead of `step`, or `every` is below 1.
        """
        if self.every < 1 or self.last <= step:
            raise ValueError(f"no point of {self} is ahead of step {step}")
        return min(self.every - step % self.every, self.last - step)

    def most_steps(self, step: int) -> int:
        """Returns how many steps from `step` one call may take with the room it has for rows."""
        return self.after(step) + (MOST - 1) * self.every


class LogPoint(NamedTuple):
    """The loop's values at a log point.

    Attributes:
      step: number of steps taken.
      updates: number of those that updated the weights.
      loss_scale: after the last of them.
      learning_rate: of the last of them.
      sums: float64, as TrainState.sums.
    """

    step: int
    updates: int
    loss_scale: float
    learning_rate: float
    sums: np.ndarray

    @classmethod
    def of_row(cls, row: np.ndarray) -> LogPoint:
        """Reads a row of `row`; float64 holds step numbers up to 2^53."""
        step, updates, scale, rate, *sums = row.tolist()
        return cls(int(step), int(updates), scale, rate, np.array(sums))


def row(
    *,
    step: tf.Tensor,
    updates: tf.Tensor,
    loss_scale: tf.Tensor,
    learning_rate: tf.Tensor,
    sums: tf.Tensor,
) -> tf.Tensor:
    """Returns a LogPoint as one vector, float64 [4 + sums], in the graph."""
    numbers = step, updates, loss_scale, learning_rate
    return tf.concat([tf.stack([tf.cast(each, tf.float64) for each in numbers]), sums], 0)
