"""The interface of optimizers, and helper functions that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf


class Optimizer(Protocol):
    """Interface of an optimizer; implement it in a tf.Module to add an update rule."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All variables of the optimizer, in the order of `tf.Module.variables`."""

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates the slots, which checkpoints save; called once, in the strategy's scope."""

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        learning_rate: tf.Tensor,
        update: tf.Tensor,
    ) -> None:
        """Updates the variables and slots in place; called in replica context, in a graph.

        Args:
          gradients: gradients of the global batch, float32, one for each variable.
          variables: the variables passed to `create_slots`, float32, in the same order.
          learning_rate: learning rate of the step, float64 [].
          update: number of updates before this one, int64 [].
        """


def slots(variables: Sequence[tf.Variable], name: str) -> list[tf.Variable]:
    """Creates a zero-initialized slot for each variable, with its shape and dtype."""
    return [
        tf.Variable(
            tf.zeros(variable.shape, variable.dtype),
            trainable=False,
            name=f"{variable.name.split(':')[0]}/{name}",
        )
        for variable in variables
    ]


def float32(value: tf.Tensor) -> tf.Tensor:
    """Casts a value computed in float64 to float32, the dtype of the kernels."""
    return tf.cast(value, tf.float32)


def is_matrix(variable: tf.Variable) -> bool:
    """Returns whether the rank is above 1: False for biases and normalization parameters."""
    return variable.shape.rank > 1
