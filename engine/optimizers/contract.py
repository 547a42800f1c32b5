"""What an optimizer must offer, and what all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf


class Optimizer(Protocol):
    """Implement it, as a tf.Module, to bring an update rule of your own."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All that it has, as a tf.Module tells them."""

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Makes the variables that must survive; called once, inside the strategy's scope."""

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        learning_rate: tf.Tensor,
        update: tf.Tensor,
    ) -> None:
        """Moves the variables, in the graph, on each replica.

        Args:
          gradients: float32, of the global batch, one for each variable.
          variables: float32, as given to `create_slots`.
          learning_rate: float64 [].
          update: int64 [], updates applied before this one.
        """


def slots(variables: Sequence[tf.Variable], name: str) -> list[tf.Variable]:
    """Zeros beside each variable, of its shape and dtype, that survive with it."""
    return [
        tf.Variable(
            tf.zeros(variable.shape, variable.dtype),
            trainable=False,
            name=f"{variable.name.split(':')[0]}/{name}",
        )
        for variable in variables
    ]


def float32(value: tf.Tensor) -> tf.Tensor:
    """What was computed in float64, as the kernels want it."""
    return tf.cast(value, tf.float32)


def is_matrix(variable: tf.Variable) -> bool:
    """Whether it is a matrix or a kernel: what decays. Biases and the vectors of norms are not."""
    return variable.shape.rank > 1
