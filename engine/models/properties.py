"""Variables of a model, a `tf.Module`: by attribute path, and those that are statistics."""

from __future__ import annotations

import tensorflow as tf


def named_variables(module: tf.Module) -> dict[str, tf.Variable]:
    """Returns a dict of a module's variables by attribute path, such as "model/layers/0/kernel"."""
    flat = module._flatten(predicate=lambda part: isinstance(part, tf.Variable), with_path=True)
    return {"/".join(map(str, path)): variable for path, variable in flat}


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
