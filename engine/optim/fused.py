"""The optimizers SGD, momentum, RMSProp, Adam and AdamW, on TensorFlow's fused kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from engine.optim.base import Optimizer, bias_correction, descend, slots
from engine.optim.weight_decay import decayed


class GradientDescent(tf.Module):
    """Stochastic gradient descent: `w -= rate * g` (Robbins and Monro 1951)."""

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates no slots: gradient descent needs none."""

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables in place; see `Optimizer.apply`."""
        rate = tf.cast(learning_rate, tf.float32)
        for gradient, variable in zip(gradients, variables, strict=True):
            descend(variable, rate, gradient)


class Momentum(tf.Module):
    """SGD with momentum (Polyak 1964), also in the form of Nesterov (Sutskever et al. 2013).

    By `momentum_of`, the velocity m sums

    - "updates": `m = momentum * m - rate * g; w += m` or, with `nesterov`,
      `w += momentum * m - rate * g`, with the new m. A new learning rate is that of new gradients
      alone. So do Keras and Caffe.
    - "gradients": `m = momentum * m + g; w -= rate * m` or, with `nesterov`,
      `w -= rate * (g + momentum * m)`. So does PyTorch, with a dampening of 0.

    With a constant learning rate, both are the same.
    """

    def __init__(
        self, momentum: float, nesterov: bool = False, momentum_of: str = "updates"
    ) -> None:
        super().__init__(name="momentum")
        self._momentum, self._nesterov = momentum, nesterov
        self._of_gradients = momentum_of == "gradients"

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates a velocity slot `m` for each variable."""
        self.velocities = slots(variables, "velocity")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        rate = tf.cast(learning_rate, tf.float32)
        ops = tf.raw_ops
        kernel = ops.ResourceApplyMomentum if self._of_gradients else ops.ResourceApplyKerasMomentum
        for gradient, variable, velocity in zip(gradients, variables, self.velocities, strict=True):
            kernel(
                var=variable.handle,
                accum=velocity.handle,
                lr=rate,
                grad=gradient,
                momentum=self._momentum,
                use_nesterov=self._nesterov,
            )


def nesterov(momentum: float, momentum_of: str = "updates") -> Momentum:
    """Returns SGD with Nesterov momentum: `Momentum` with `nesterov`."""
    return Momentum(momentum, nesterov=True, momentum_of=momentum_of)


class RMSProp(tf.Module):
    """RMSProp: `s = rho * s + (1 - rho) * g^2; w -= rate * g / sqrt(s + epsilon)`.

    Tieleman and Hinton 2012, without momentum. Epsilon is inside the square root, as in Keras.
    """

    def __init__(self, rho: float, epsilon: float) -> None:
        super().__init__(name="rmsprop")
        self._rho, self._epsilon = rho, epsilon

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates second-moment slots, and slots for the last update, which the kernel requires."""
        self.squares, self.updates = slots(variables, "square"), slots(variables, "update")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        rate = tf.cast(learning_rate, tf.float32)
        for gradient, variable, square, last_update in zip(
            gradients, variables, self.squares, self.updates, strict=True
        ):
            tf.raw_ops.ResourceApplyRMSProp(
                var=variable.handle,
                ms=square.handle,
                mom=last_update.handle,
                lr=rate,
                rho=self._rho,
                momentum=0.0,
                epsilon=self._epsilon,
                grad=gradient,
            )


class Adam(tf.Module):
    """Adam (Kingma and Ba 2015); with `DecoupledDecay`, AdamW (Loshchilov and Hutter 2019).

    `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    w -= rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)`, with t counted from 1: the
    variant with epsilon hat at the end of section 2 of the paper, which Keras implements too.
    """

    def __init__(self, beta_1: float, beta_2: float = 0.999, epsilon: float = 1e-7) -> None:
        super().__init__(name="adam")
        # The kernel takes the betas in float32; the bias correction must use the same values.
        self._beta_1, self._beta_2 = float(np.float32(beta_1)), float(np.float32(beta_2))
        self._epsilon = epsilon

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates first- and second-moment slots for each variable."""
        self.means, self.squares = slots(variables, "mean"), slots(variables, "square")

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Updates the variables and slots in place; see `Optimizer.apply`."""
        correction = tf.sqrt(bias_correction(self._beta_2, update))
        correction /= bias_correction(self._beta_1, update)
        corrected_rate = tf.cast(learning_rate * correction, tf.float32)
        for gradient, variable, mean, square in zip(
            gradients, variables, self.means, self.squares, strict=True
        ):
            # Beta powers of 0 disable the kernel's own bias correction, which is in float32.
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


def adamw(
    beta_1: float, beta_2: float = 0.999, epsilon: float = 1e-7, weight_decay: float = 0.01
) -> Optimizer:
    """Returns AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return decayed(Adam(beta_1, beta_2, epsilon), weight_decay)
