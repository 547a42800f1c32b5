"""The optimizer interface, and helpers that optimizers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf


class Optimizer(Protocol):
    """Interface of an optimizer; implement it in a tf.Module to add an update rule."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All variables of the optimizer, as `tf.Module.variables` returns them."""

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates the variables that checkpoints hold; called once, in the strategy's scope."""

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        learning_rate: tf.Tensor,
        update: tf.Tensor,
    ) -> None:
        """Updates the variables, in the graph, on each replica.

        Args:
          gradients: gradients of the global batch, float32, one for each variable.
          variables: variables passed to `create_slots`, float32.
          learning_rate: learning rate of the step, float64 [].
          update: number of updates before this one, int64 [].
        """


def slots(variables: Sequence[tf.Variable], name: str) -> list[tf.Variable]:
    """Creates a slot of zeros for each variable, of its shape and dtype."""
    return [
        tf.Variable(
            tf.zeros(variable.shape, variable.dtype),
            trainable=False,
            name=f"{variable.name.split(':')[0]}/{name}",
        )
        for variable in variables
    ]


def float32(value: tf.Tensor) -> tf.Tensor:
    """Casts a value that was computed in float64 to the dtype of the kernels."""
    return tf.cast(value, tf.float32)


def is_matrix(variable: tf.Variable) -> bool:
    """Returns whether weight decay applies: to matrices and kernels, not to biases and norms."""
    return variable.shape.rank > 1
