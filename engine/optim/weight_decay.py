"""Decoupled weight decay as a wrapper of optimizers, and AdamW."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.optim.base import Optimizer, float32, is_matrix
from engine.optim.fused import Adam
from engine.optim.moments import descend


class DecoupledDecay(tf.Module):
    """Decoupled weight decay for an optimizer (Loshchilov and Hutter 2019).

    It computes `w -= rate * decay * w`, then the update of the wrapped optimizer. The decay is not
    part of the gradient, so it does not change the slots. It applies to matrices and kernels only,
    not to biases and normalization parameters.

    Args:
      optimizer: optimizer to wrap; its update must not depend on the values of the variables.
      decay: weight decay, above 0; an update subtracts the fraction `learning_rate * decay` of a
        weight.
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        super().__init__(name="decoupled_decay")
        self.optimizer = optimizer
        self.decay = decay

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates the slots of the wrapped optimizer."""
        self.optimizer.create_slots(variables)

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        decay = float32(learning_rate * self.decay)
        for variable in filter(is_matrix, variables):
            descend(variable, decay, variable)
        self.optimizer.apply(gradients, variables, learning_rate, update)


def decayed(optimizer: Optimizer, decay: float) -> Optimizer:
    """Returns the optimizer with decoupled weight decay, or unchanged if `decay` is 0."""
    return DecoupledDecay(optimizer, decay) if decay else optimizer


def adamw(
    beta_1: float, beta_2: float = 0.999, epsilon: float = 1e-7, weight_decay: float = 0.01
) -> Optimizer:
    """Returns AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return decayed(Adam(beta_1, beta_2, epsilon), weight_decay)
