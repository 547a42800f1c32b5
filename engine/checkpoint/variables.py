"""Names, reads and checks the variables of the state for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf


def named_variables(module: tf.Module) -> dict[str, tf.Variable]:
    """Returns the variables by their paths in the module, such as "model/layers/0/kernel"."""
    found = module._flatten(predicate=lambda part: isinstance(part, tf.Variable), with_path=True)
    return {"/".join(map(str, path)): variable for path, variable in found}


def value_of(variable: tf.Variable) -> np.ndarray:
    """Returns a copy of a variable's value; for a mirrored variable, that of the first replica.

    The value is the same as `variable.numpy()`. The lower overhead matters because a state has
    dozens of scalars.
    """
    (first, *_) = getattr(variable, "values", (variable,))
    return tf.raw_ops.ReadVariableOp(resource=first.handle, dtype=first.dtype).numpy()


def check_variables(
    path: str, arrays: Mapping[str, np.ndarray], variables: Mapping[str, tf.Variable]
) -> None:
    """Raises ValueError if an array is missing, or its shape or dtype is not the variable's."""
    for name, variable in variables.items():
        array = arrays.get(name)
        if array is None:
            raise ValueError(f"{path} has no {name}: it is of another network or task")
        wanted = (tuple(variable.shape), variable.dtype.name)
        if (array.shape, array.dtype.name) != wanted:
            raise ValueError(
                f"{name} in {path} is {array.dtype.name} {list(array.shape)} and has to be "
                f"{wanted[1]} {list(wanted[0])}: it is of another network, task or data set"
            )
