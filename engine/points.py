"""Points of the training curves: which steps they are, and what the graph notes down there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

NEVER = 1 << 62
MOST = 128  # that one call of the graph has room for


class Points(NamedTuple):
    """Which steps are points, counted as steps that are behind then.

    every: the multiples of this.
    last: and this one, which no call goes beyond.
    """

    every: int = NEVER
    last: int = NEVER

    def after(self, step: int) -> int:
        """Returns the steps from `step` to the next point, 1 or more.

        Raises:
          ValueError: when `last` is not ahead of `step`, or `every` is below 1.
        """
        if self.every < 1 or self.last <= step:
            raise ValueError(f"no point of {self} is ahead of step {step}")
        return min(self.every - step % self.every, self.last - step)

    def most_steps(self, step: int) -> int:
        """Steps from `step` that one call may take, so that it has room for its points."""
        return self.after(step) + (MOST - 1) * self.every


class Point(NamedTuple):
    """What stood in the loop at a point.

    step: steps that are behind.
    updates: of them, those that moved the weights.
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
    def of_row(cls, row: np.ndarray) -> Point:
        """Reads what `row` wrote; float64 holds numbers of steps to 2^53."""
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
    """A Point as one vector, float64 [4 + sums], in the graph."""
    numbers = step, updates, loss_scale, learning_rate
    return tf.concat([tf.stack([tf.cast(each, tf.float64) for each in numbers]), sums], 0)
