"""LAMB: Adam with a trust ratio for each variable."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.optim.base import float32, is_matrix, slots
from engine.optim.moments import average, bias_correction, descend, norm

# The norm of an update below this counts as 0, because the trust ratio could overflow float32.
_SHORTEST = 1e-30


class Lamb(tf.Module):
    """LAMB (You et al. 2020, "Large Batch Optimization for Deep Learning", algorithm 2).

    `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + decay * w;
    w -= rate * ||w|| / ||u|| * u`, with t counted from 1. The trust ratio `||w|| / ||u||` is 1
    if either norm is 0.

    Biases and normalization parameters (rank 1) have no weight decay and a trust ratio of 1, as in
    the authors' code, which excludes the same variables from both; the paper does not specify this.
    With a trust ratio, a bias, which starts at 0, could grow only by a fraction of its norm per
    update.

    Args:
      beta_1: decay rate of the first moment.
      beta_2: decay rate of the second moment.
      epsilon: constant added to the denominator, for numerical stability.
      weight_decay: weight decay of matrices and kernels, added to `u`, so it is not decoupled.
    """

    def __init__(
        self,
        beta_1: float,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(name="lamb")
        self._beta_1, self._beta_2 = beta_1, beta_2
        self._epsilon, self._decay = epsilon, weight_decay
        self.means: list[tf.Variable] = []
        self.squares: list[tf.Variable] = []

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates first- and second-moment slots for each variable."""
        self.means = slots(variables, "mean")
        self.squares = slots(variables, "square")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        of_mean = float32(1.0 / bias_correction(self._beta_1, update))
        of_square = float32(1.0 / bias_correction(self._beta_2, update))
        for gradient, variable, mean, square in zip(
            gradients, variables, self.means, self.squares, strict=True
        ):
            first = of_mean * average(mean, gradient, self._beta_1)
            second = of_square * average(square, tf.square(gradient), self._beta_2)
            direction = first / (tf.sqrt(second) + self._epsilon)
            rate = learning_rate
            if is_matrix(variable):
                direction += self._decay * variable
                rate *= _trust(variable, direction)
            descend(variable, float32(rate), direction)


def _trust(weight: tf.Variable, direction: tf.Tensor) -> tf.Tensor:
    """Returns the trust ratio `||weight|| / ||direction||`, or 1 if a norm is 0; float64 []."""
    ours, its = norm(weight), norm(direction)
    return tf.where((ours > 0.0) & (its > _SHORTEST), ours / its, tf.ones_like(ours))
