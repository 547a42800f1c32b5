"""Interface of optimizers, and operations that several optimizers use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf


class Optimizer(Protocol):
    """Interface of an optimizer; implement it in a tf.Module to add an update rule."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All variables of the optimizer (its slots), in the order of `tf.Module.variables`."""

    def create_slots(self, variables: Sequence[tf.Variable]) -> None:
        """Creates the slots of the variables; called once, in the `tf.distribute` scope."""

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        learning_rate: tf.Tensor,
        update: tf.Tensor,
    ) -> None:
        """Updates the variables and slots in place; called in replica context, in a graph.

        Args:
          gradients: gradients of the global batch, float32, one for each variable.
          variables: the variables passed to `create_slots`, float32, in the same order.
          learning_rate: learning rate of the step, float64 [].
          update: number of updates before this one, int64 [].
        """


def slots(variables: Sequence[tf.Variable], name: str) -> list[tf.Variable]:
    """Returns a new slot for each variable: non-trainable zeros of the variable's shape and dtype.

    A slot is named "{name of the variable}/{name}".
    """
    return [
        tf.Variable(
            tf.zeros(variable.shape, variable.dtype),
            trainable=False,
            name=f"{variable.name.split(':')[0]}/{name}",
        )
        for variable in variables
    ]


def is_matrix(variable: tf.Variable) -> bool:
    """Returns whether the rank of a variable is above 1.

    This is False for biases and for the parameters of normalization layers.
    """
    return variable.shape.rank > 1


def bias_correction(beta: float, update: tf.Tensor) -> tf.Tensor:
    """Returns `1 - beta^t`, float64 [], by which a zero-initialized moment is divided.

    t is `update + 1`, where `update`, int64 [], is the number of updates before this one.
    """
    t = tf.cast(update + 1, tf.float64)
    return 1.0 - tf.constant(beta, tf.float64) ** t


def norm(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean norm of a tensor, float64 []: squares in float32 could overflow."""
    return tf.norm(tf.cast(tensor, tf.float64))


def average(mean: tf.Variable, value: tf.Tensor, decay: float) -> tf.Tensor:
    """Updates a moving average in place, `mean = decay * mean + (1 - decay) * value`.

    Returns the new value. The computation is `mean + (1 - decay) * (value - mean)`, because `decay`
    and `1 - decay`, each rounded to float32, do not add up to 1: at 0.999, a relative error of
    1.3e-5 in the mean.
    """
    new = mean + (1.0 - decay) * (value - mean)
    tf.raw_ops.AssignVariableOp(resource=mean.handle, value=new)
    return new


def descend(variable: tf.Variable, rate: tf.Tensor, direction: tf.Tensor) -> None:
    """Computes `variable -= rate * direction` on this replica, in place; `rate` is float32 []."""
    tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=direction)
