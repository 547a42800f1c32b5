"""Gradients -> updates, on the fused kernels TensorFlow has.

Each optimizer keeps its slots beside the variables they belong to and writes both in place with
one kernel a variable. What changes with the step (rate, bias correction) is computed once a step
in float64 and handed to the kernels as one float32 number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from engine.optimizers.arithmetic import bias_correction, descend
from engine.optimizers.contract import float32, slots


class GradientDescent(tf.Module):
    """`w -= rate * g` (Robbins and Monro 1951)."""

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """None to make."""

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """See `Optimizer`."""
        rate = float32(learning_rate)
        for gradient, variable in zip(gradients, variables, strict=True):
            descend(variable, rate, gradient)


class Momentum(tf.Module):
    """`m = momentum * m - rate * g; w += m` (Polyak 1964).

    With `nesterov`, `w += momentum * m - rate * g` (Sutskever et al. 2013).
    """

    def __init__(self, momentum: float, nesterov: bool) -> None:
        super().__init__(name="momentum")
        self._momentum, self._nesterov = momentum, nesterov
        self.velocities: list[tf.Variable] = []

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """One velocity a variable."""
        self.velocities = slots(variables, "velocity")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """See `Optimizer`."""
        rate = float32(learning_rate)
        for gradient, variable, velocity in zip(gradients, variables, self.velocities, strict=True):
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle,
                accum=velocity.handle,
                lr=rate,
                grad=gradient,
                momentum=self._momentum,
                use_nesterov=self._nesterov,
            )


class RMSProp(tf.Module):
    """`s = rho * s + (1 - rho) * g^2; w -= rate * g / sqrt(s + epsilon)`.

    Tieleman and Hinton 2012, without momentum; epsilon inside the root, as in Keras.
    """

    def __init__(self, rho: float, epsilon: float) -> None:
        super().__init__(name="rmsprop")
        self._rho, self._epsilon = rho, epsilon
        self.squares: list[tf.Variable] = []
        self.updates: list[tf.Variable] = []

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """A mean square a variable, and the last update, which the kernel keeps."""
        self.squares = slots(variables, "square")
        self.updates = slots(variables, "update")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """See `Optimizer`."""
        rate = float32(learning_rate)
        for gradient, variable, square, last in zip(
            gradients, variables, self.squares, self.updates, strict=True
        ):
            tf.raw_ops.ResourceApplyRMSProp(
                var=variable.handle,
                ms=square.handle,
                mom=last.handle,
                lr=rate,
                rho=self._rho,
                momentum=0.0,
                epsilon=self._epsilon,
                grad=gradient,
            )


class Adam(tf.Module):
    """Adam (Kingma and Ba 2015); with decoupled decay it is AdamW (Loshchilov and Hutter 2019).

    `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    w -= rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)`, with t counted from 1, the
    order of the paper's section 2 and of Keras.
    """

    def __init__(self, beta_1: float, beta_2: float, epsilon: float) -> None:
        super().__init__(name="adam")
        # The kernel holds the betas in float32; the correction must be of those very numbers.
        self._beta_1, self._beta_2 = float(np.float32(beta_1)), float(np.float32(beta_2))
        self._epsilon = epsilon
        self.means: list[tf.Variable] = []
        self.squares: list[tf.Variable] = []

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """A mean and a mean square a variable."""
        self.means = slots(variables, "mean")
        self.squares = slots(variables, "square")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """See `Optimizer`."""
        correction = tf.sqrt(bias_correction(self._beta_2, update))
        correction /= bias_correction(self._beta_1, update)
        corrected_rate = float32(learning_rate * correction)
        for gradient, variable, mean, square in zip(
            gradients, variables, self.means, self.squares, strict=True
        ):
            # Powers of zero switch the kernel's own correction, made in float32, off.
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=mean.handle,
                v=square.handle,
                beta1_power=0.0,
                beta2_power=0.0,
                lr=corrected_rate,
                beta1=self._beta_1,
                beta2=self._beta_2,
                epsilon=self._epsilon,
                grad=gradient,
            )
