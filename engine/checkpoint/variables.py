"""Functions that read and check the variables of a training state for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf


def value_of(variable: tf.Variable) -> np.ndarray:
    """Returns a copy of a variable's value; for a mirrored variable, the first replica's value.

    This is faster than `variable.numpy()`, which matters because a state has dozens of scalars.
    """
    (first, *_) = getattr(variable, "values", (variable,))
    return tf.raw_ops.ReadVariableOp(resource=first.handle, dtype=first.dtype).numpy()


def check_variables(
    path: str, arrays: Mapping[str, np.ndarray], variables: Mapping[str, tf.Variable]
) -> None:
    """Raises ValueError if a variable's array is missing or has another shape or dtype.

    `path`, that of the checkpoint, is only for the message. Arrays without a variable are allowed.
    """
    for name, variable in variables.items():
        array = arrays.get(name)
        if array is None:
            raise ValueError(f"{path} has no {name}: it is of another network or task")
        shape, dtype = tuple(variable.shape), variable.dtype.name
        if (array.shape, array.dtype.name) != (shape, dtype):
            raise ValueError(
                f"{name} in {path} is {array.dtype.name} {list(array.shape)} and has to be "
                f"{dtype} {list(shape)}: it is of another network, task or data set"
            )
