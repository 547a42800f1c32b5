"""Decoupled weight decay, beside any optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.optimizers.arithmetic import descend
from engine.optimizers.contract import Optimizer, float32, is_matrix


class DecoupledDecay(tf.Module):
    """`w -= rate * decay * w`, then the optimizer's own update (Loshchilov and Hutter 2019).

    The decay is no part of the gradient, so no slot sees it. On matrices and kernels only: biases
    and norms are left alone.

    Args:
      optimizer: what moves the variables otherwise; its update must not depend on their values.
      decay: above 0; a fraction `learning_rate * decay` of a weight goes with each update.
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        super().__init__(name="decoupled_decay")
        self.optimizer = optimizer
        self._decay = decay

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """The optimizer's."""
        self.optimizer.create_slots(variables)

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """See `Optimizer`."""
        decay = float32(learning_rate * self._decay)
        for variable in filter(is_matrix, variables):
            descend(variable, decay, variable)
        self.optimizer.apply(gradients, variables, learning_rate, update)
