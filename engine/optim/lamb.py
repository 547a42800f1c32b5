"""LAMB: Adam with a trust ratio for each variable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from engine.optim.base import average, bias_correction, descend, is_matrix, norm, slots
from engine.optim.weight_decay import of_matrices


class Lamb(tf.Module):
    """LAMB (You et al. 2020, "Large Batch Optimization for Deep Learning", algorithm 2).

    `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + decay * w;
    w -= rate * ||w|| / ||u|| * u`, with t counted from 1. The trust ratio `||w|| / ||u||` is 1
    if `||w||` is 0 or `||u||` is at most 1e-30. As in AdamW, the weight decay does not enter the
    moments; but the trust ratio scales it with the rest of the update.

    Biases and normalization parameters (rank 1) have no weight decay and a trust ratio of 1, as in
    the authors' code, which excludes the same variables from both; the paper does not specify this.
    A trust ratio would let a bias, which starts at 0, grow only by a fraction of its norm per step.
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
        self._epsilon, self.decay = epsilon, weight_decay
        self.factor: Callable[[tf.Variable], float] = of_matrices

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates first- and second-moment slots for each variable."""
        self.means, self.squares = slots(variables, "mean"), slots(variables, "square")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        mean_factor = tf.cast(1.0 / bias_correction(self._beta_1, update), tf.float32)
        square_factor = tf.cast(1.0 / bias_correction(self._beta_2, update), tf.float32)
        for gradient, variable, mean, square in zip(
            gradients, variables, self.means, self.squares, strict=True
        ):
            first = mean_factor * average(mean, gradient, self._beta_1)
            second = square_factor * average(square, tf.square(gradient), self._beta_2)
            direction = first / (tf.sqrt(second) + self._epsilon)
            rate = learning_rate
            if factor := self.factor(variable):
                direction += (self.decay * factor) * variable
            if is_matrix(variable):
                rate *= _trust_ratio(variable, direction)
            descend(variable, tf.cast(rate, tf.float32), direction)


def _trust_ratio(weight: tf.Variable, direction: tf.Tensor) -> tf.Tensor:
    """Returns `||weight|| / ||direction||`, float64 [], or 1 if that is not defined.

    The ratio is not defined if `||weight||` is 0 or `||direction||` is at most 1e-30.
    """
    numerator, denominator = norm(weight), norm(direction)
    # A norm of an update below 1e-30 counts as 0, because the ratio could overflow float32.
    defined = (numerator > 0.0) & (denominator > 1e-30)
    return tf.where(defined, numerator / denominator, tf.ones_like(numerator))
