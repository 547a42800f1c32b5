"""Variables that are trained for a number of updates, and then stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from engine.optim.base import Optimizer
from engine.optim.patterns import freezing_updates, selected


class FreezeAfter(tf.Module):
    """An optimizer wrapped so that some variables are not updated after a number of updates.

    Neither the gradient nor weight decay or Lookahead then changes them. The slots of the wrapped
    optimizer go on.

    Args:
      optimizer: the wrapped optimizer.
      updates: value of `--freeze_after`, see `freezing_updates`.
      variables: trainable variables by name.

    Raises:
      ValueError: if a pattern selects no variable.
    """

    def __init__(
        self, optimizer: Optimizer, updates: str, variables: Mapping[str, tf.Variable]
    ) -> None:
        super().__init__(name="freeze_after")
        self.optimizer = optimizer
        by_pattern = freezing_updates(updates)
        found = selected(f"--freeze_after={updates}", list(by_pattern), variables)
        self._updates = {id(variables[name]): by_pattern[each] for name, each in found.items()}

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates the slots of the wrapped optimizer."""
        self.optimizer.create_slots(variables)

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Applies the wrapped optimizer, and restores what is frozen; see `Optimizer.apply`."""
        freezing = [each for each in variables if id(each) in self._updates]
        before = [variable.read_value() for variable in freezing]
        self.optimizer.apply(gradients, variables, learning_rate, update)
        # Without a condition in the graph: a GPU's host would wait for it.
        for variable, old in zip(freezing, before, strict=True):
            is_trained = update < self._updates[id(variable)]
            value = tf.where(is_trained, variable.read_value(), old)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
