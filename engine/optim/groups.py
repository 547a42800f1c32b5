"""Groups of variables with learning rates of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from engine.optim.base import Optimizer


class Groups(tf.Module):
    """An optimizer for each group of variables, with a multiplier of the learning rate.

    Each variable is updated as by one optimizer at the multiplied rate; so is decoupled weight
    decay, which is a multiple of the rate.

    Args:
      make: returns a new optimizer.
      multiplier: returns the multiplier of a variable.
    """

    def __init__(
        self, make: Callable[[], Optimizer], multiplier: Callable[[tf.Variable], float]
    ) -> None:
        super().__init__(name="groups")
        self._make, self._multiplier = make, multiplier
        self.optimizers: list[Optimizer] = []

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Divides the variables into groups, and creates the slots of each group's optimizer."""
        found = [self._multiplier(variable) for variable in variables]
        self._groups = {
            value: [place for place, each in enumerate(found) if each == value]
            for value in sorted(set(found), reverse=True)
        }
        self.optimizers = [self._make() for _ in self._groups]
        for optimizer, places in zip(self.optimizers, self._groups.values(), strict=True):
            optimizer.create_slots([variables[place] for place in places])

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        for optimizer, (value, places) in zip(self.optimizers, self._groups.items(), strict=True):
            optimizer.apply(
                [gradients[place] for place in places],
                [variables[place] for place in places],
                learning_rate * value,
                update,
            )
