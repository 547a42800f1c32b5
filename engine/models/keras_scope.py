"""A scope of Keras in which variables have given values, and assignments are recorded."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

SEED = "seed_generator_state"  # name of the variable of each of Keras's seed generators


class Scope(keras.StatelessScope):
    """Scope of Keras in which variables have given values, and assignments are recorded, not made.

    Args:
      values: (Keras variable, value) pairs.
      known: names of the model's variables and seed generators, by `id` of the Keras variable.
      seed: function that returns a seed, int32 [2], for a name.
    """

    def __init__(self, values: list[tuple[Any, tf.Tensor]], known: dict[int, str], seed: Any):
        super().__init__(values, collect_losses=True, initialize_variables=False)
        self.updated: dict[int, Any] = {}  # assigned variables by `id`
        self.foreign: dict[int, Any] = {}  # variables in use that are none of the model's
        self._known, self._seed = known, seed

    def get_current_value(self, variable: Any) -> Any:
        """Returns the value that this scope gives to a Keras variable, or None if it gives none.

        The value of the state of a seed generator is a seed of the engine. A variable that has no
        value in this scope and is not the model's is added to `foreign`.
        """
        value = super().get_current_value(variable)
        if value is None and variable.name == SEED:
            name = self._known.get(id(variable), "global")
            value = tf.cast(self._seed(f"keras/{name}"), variable.dtype)
            self.state_mapping[id(variable)] = value
        elif value is None and id(variable) not in self._known:
            self.foreign[id(variable)] = variable
        return value

    def add_update(self, update: Any) -> None:
        """Records an assignment, (Keras variable, value), instead of making it.

        The variable is added to `updated`, and to `foreign` if it is not the model's, unless it is
        the state of a seed generator.
        """
        super().add_update(update)
        variable = update[0]
        if variable.name != SEED:
            self.updated[id(variable)] = variable
            if id(variable) not in self._known:
                self.foreign[id(variable)] = variable
