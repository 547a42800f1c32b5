"""Muon: SGD with Nesterov momentum and orthogonalized updates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from engine.optim.base import Optimizer, descend, is_matrix, norm, slots
from engine.optim.fused import Adam
from engine.optim.weight_decay import decayed


class Muon(tf.Module):
    """Muon (Jordan et al. 2024), scaled to the RMS of Adam (Liu et al. 2025, "Muon is scalable").

    `m = momentum * m + g; w -= rate * 0.2 * sqrt(max(rows, columns)) * o(g + momentum * m)`, where
    `o` is `orthogonalized`. The factor makes the root mean square of `w`'s update about 0.2 times
    the rate, as with Adam. So the same learning rate is suitable for the biases and normalization
    parameters, which the optimizer `vectors` updates.

    Kernels [height, width, in, out] are reshaped to matrices [height * width * in, out]. The
    authors use a momentum of 0.95, and Adam for the first and the last layer; here Muon updates
    every matrix.
    """

    def __init__(self, momentum: float, vectors: Adam, epsilon: float) -> None:
        super().__init__(name="muon")
        self._momentum, self._epsilon = momentum, epsilon
        self.vectors = vectors

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates a velocity slot for each matrix, and Adam's slots for the other variables."""
        self.velocities = slots([v for v in variables if is_matrix(v)], "velocity")
        self.vectors.create_slots([v for v in variables if not is_matrix(v)])

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        pairs = list(zip(gradients, variables, strict=True))
        others = [pair for pair in pairs if not is_matrix(pair[1])]
        self.vectors.apply([g for g, _ in others], [v for _, v in others], learning_rate, update)
        matrices = [pair for pair in pairs if is_matrix(pair[1])]
        for (gradient, variable), velocity in zip(matrices, self.velocities, strict=True):
            new_velocity = self._momentum * velocity + gradient
            tf.raw_ops.AssignVariableOp(resource=velocity.handle, value=new_velocity)
            rows, columns = math.prod(variable.shape[:-1]), variable.shape[-1]
            matrix = tf.reshape(gradient + self._momentum * new_velocity, [rows, columns])
            direction = tf.reshape(orthogonalized(matrix, self._epsilon), variable.shape)
            rate = learning_rate * 0.2 * math.sqrt(max(rows, columns))
            descend(variable, tf.cast(rate, tf.float32), direction)


def orthogonalized(matrix: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Returns a float32 matrix with the singular vectors of `matrix` and singular values near 1.

    Starts from `x = matrix / (||matrix|| + epsilon)`, with the Frobenius norm, and runs five
    Newton-Schulz iterations `x = (a I + b x x' + c (x x')^2) x`, whose coefficients trade
    convergence for fast initial growth. Singular values above 0.002 of the norm end between 0.68
    and 1.21; smaller ones, as fractions of the norm, grow by a factor of up to 484.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = tf.transpose(matrix) if tall else matrix  # so that x x' is the smaller Gram matrix
    x /= tf.cast(norm(x) + epsilon, tf.float32)
    for _ in range(5):
        square = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
    return tf.transpose(x) if tall else x


def muon(
    momentum: float,
    beta_1: float,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    weight_decay: float = 0.01,
) -> Optimizer:
    """Returns Muon with decoupled weight decay; Adam updates the variables of rank 1."""
    return decayed(Muon(momentum, Adam(beta_1, beta_2, epsilon), epsilon), weight_decay)
