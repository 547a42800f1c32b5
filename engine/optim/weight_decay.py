"""Weight decay of any optimizer, decoupled from the gradient or as a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from engine.optim.base import Optimizer, descend, is_matrix


def of_matrices(variable: tf.Variable) -> float:
    """Returns the default factor of the decay of a variable: 1 for matrices and kernels, else 0."""
    return 1.0 if is_matrix(variable) else 0.0


class _Decay(tf.Module):
    """Base class of an optimizer that is wrapped with weight decay.

    Attributes:
      optimizer: the wrapped optimizer.
      decay: the decay.
      factor: returns a factor of the decay of a variable; by default, `of_matrices`.
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        super().__init__()
        self.optimizer, self.decay = optimizer, decay
        self.factor: Callable[[tf.Variable], float] = of_matrices

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates the slots of the wrapped optimizer."""
        self.optimizer.create_slots(variables)


class DecoupledDecay(_Decay):
    """An optimizer wrapped with decoupled weight decay (Loshchilov and Hutter 2019).

    Computes `w -= learning_rate * decay * w`, then the update of the wrapped optimizer, which must
    not depend on the values of the variables. The decay is not part of the gradient, so it does not
    change the slots.
    """

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Decays the weights, then applies the wrapped optimizer; see `Optimizer.apply`."""
        for variable in filter(self.factor, variables):
            decay = tf.cast(learning_rate * (self.decay * self.factor(variable)), tf.float32)
            descend(variable, decay, variable)
        self.optimizer.apply(gradients, variables, learning_rate, update)


class CoupledDecay(_Decay):
    """An optimizer wrapped with weight decay that is part of the gradient, as L2 regularization.

    The wrapped optimizer gets `g + decay * w` in place of the gradient g, so that the decay enters
    its slots: the gradient of a loss with the penalty `decay / 2 * ||w||^2`. This is what the
    argument `weight_decay` of PyTorch's SGD and Adam does. Clipping has seen g alone.
    """

    def apply(self, gradients, variables, learning_rate, update) -> None:
        """Adds the decay to the gradients, then applies the optimizer; see `Optimizer.apply`."""
        with_decay = list(gradients)
        for place, variable in enumerate(variables):
            if factor := self.factor(variable):
                with_decay[place] += (self.decay * factor) * variable
        self.optimizer.apply(with_decay, variables, learning_rate, update)


def decayed(optimizer: Optimizer, decay: float, coupled: bool = False) -> Optimizer:
    """Returns the optimizer with weight decay, or unchanged if `decay` is 0.

    Args:
      optimizer: the optimizer.
      decay: the decay.
      coupled: whether the decay is part of the gradient.
    """
    if not decay:
        return optimizer
    return CoupledDecay(optimizer, decay) if coupled else DecoupledDecay(optimizer, decay)
