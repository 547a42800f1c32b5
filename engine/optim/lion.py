"""The optimizer Lion: updates by the sign of an interpolation of momentum and gradient."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.optim.base import Optimizer, average, descend, slots
from engine.optim.weight_decay import decayed


class Lion(tf.Module):
    """Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms").

    `w -= rate * sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g`, where sign(0) is 0. It has no
    weight decay; `lion` adds it by `DecoupledDecay`.
    """

    def __init__(self, beta_1: float, beta_2: float = 0.99) -> None:
        super().__init__(name="lion")
        self._beta_1, self._beta_2 = beta_1, beta_2

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates a momentum slot for each variable."""
        self.means = slots(variables, "mean")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        rate = tf.cast(learning_rate, tf.float32)
        for gradient, variable, mean in zip(gradients, variables, self.means, strict=True):
            interpolated = self._beta_1 * mean + (1.0 - self._beta_1) * gradient
            descend(variable, rate, tf.sign(interpolated))
            average(mean, gradient, self._beta_2)


def lion(beta_1: float, beta_2: float = 0.99, weight_decay: float = 0.01) -> Optimizer:
    """Returns Lion (Chen et al. 2023) with decoupled weight decay of matrices and kernels."""
    return decayed(Lion(beta_1, beta_2), weight_decay)
