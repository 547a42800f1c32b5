"""Lookahead: slow weights that follow the optimizer's, and to which these return."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from engine.optim.base import Optimizer, slots


@dataclasses.dataclass(frozen=True)
class SlowDecay:
    """Fraction of the slow weights that a synchronisation keeps.

    It is `decay * (update / total_updates) ** power`: constant with a power of 0, and rising from 0
    with a power above 0, so that the slow weights average over more and more updates.

    Attributes:
      decay: the fraction at the end.
      power: the power.
      total_updates: number of updates of the run; used only with a power above 0.
    """

    decay: float
    power: float = 0.0
    total_updates: int = 1

    def __call__(self, update: tf.Tensor) -> tf.Tensor:
        """Returns the fraction, float64 [], at the end of an update, int64 [], counted from 0."""
        decay = tf.constant(self.decay, tf.float64)
        if not self.power:
            return decay
        done = tf.cast(update + 1, tf.float64) / self.total_updates
        return decay * tf.minimum(done, 1.0) ** self.power


class Lookahead(tf.Module):
    """An optimizer wrapped with Lookahead.

    Zhang et al. 2019, "Lookahead optimizer: k steps forward, 1 step back".
    After each `period` updates of the wrapped optimizer, `s = d s + (1 - d) w; w = s`, where s are
    the slow weights, which start as the initial weights, and d is the decay: 1 minus the paper's
    alpha. The slots of the wrapped optimizer stay as they are.

    Args:
      optimizer: the wrapped optimizer.
      period: number of updates from one synchronisation to the next, 1 or more.
      decay: the decay.
    """

    def __init__(self, optimizer: Optimizer, period: int, decay: SlowDecay) -> None:
        super().__init__(name="lookahead")
        self.optimizer, self._period, self._decay = optimizer, period, decay

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates the slots of the wrapped optimizer, and the slow weights."""
        self.optimizer.create_slots(variables)
        self.slow = slots(variables, "slow")
        for slow, variable in zip(self.slow, variables, strict=True):
            slow.assign(variable)

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Applies the wrapped optimizer, then synchronises; see `Optimizer.apply`."""
        self.optimizer.apply(gradients, variables, learning_rate, update)
        synchronised = (update + 1) % self._period == 0
        share = tf.cast(1.0 - self._decay(update), tf.float32)
        # Without a condition in the graph: a GPU's host would wait for it.
        for slow, variable in zip(self.slow, variables, strict=True):
            before, weight = slow.read_value(), variable.read_value()
            after = before + share * (weight - before)
            for each, old in ((slow, before), (variable, weight)):
                new = tf.where(synchronised, after, old)
                tf.raw_ops.AssignVariableOp(resource=each.handle, value=new)
