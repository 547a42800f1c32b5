"""Variables and modules of a model, a `tf.Module`, by attribute path, and its statistics."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def named_variables(module: tf.Module) -> dict[str, tf.Variable]:
    """Returns a dict of a module's variables by attribute path, such as "model/layers/0/kernel"."""
    flat = module._flatten(predicate=lambda part: isinstance(part, tf.Variable), with_path=True)
    return {"/".join(map(str, path)): variable for path, variable in flat}


def named_modules(model: tf.Module) -> dict[str, Any]:
    """Returns the modules inside a model, and the layers of Keras models, by attribute path."""
    flat = model._flatten(predicate=lambda part: isinstance(part, tf.Module), with_path=True)
    modules = {"/".join(map(str, path)): module for path, module in flat}
    for module in (model, *modules.values()):
        modules = {**modules, **getattr(module, "keras_layers", {})}
    return modules


def statistics(model: tf.Module) -> list[tf.Variable]:
    """Returns the non-trainable variables for which the forward pass proposes new values.

    Such a variable, for example a moving mean, has an aggregation other than NONE. Non-trainable
    variables with the aggregation NONE are frozen: a training step does not update them.
    """
    return [
        variable
        for variable in model.variables
        if not variable.trainable and variable.aggregation != tf.VariableAggregation.NONE
    ]
