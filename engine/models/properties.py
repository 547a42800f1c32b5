"""Properties of a model (`tf.Module`) that the engine needs: variables and use of randomness.

A model may have an attribute `randomness`:

- "none" (the default): it draws no random numbers.
- "per_example": the random numbers of an example do not depend on the devices, as with
  `ForwardContext.noise`.
- "per_microbatch": they depend on the micro-batch, as with `ForwardContext.seed`, so that other
  devices compute the same only with `--shards`.

and `cross_example`: whether the output of an example depends on the others of its micro-batch.
Verification does not rely on either: it finds out what a training step does.
"""

from __future__ import annotations

import tensorflow as tf


def named_variables(module: tf.Module) -> dict[str, tf.Variable]:
    """Returns a module's variables by attribute path, such as "model/layers/0/kernel"."""
    flat = module._flatten(predicate=lambda part: isinstance(part, tf.Variable), with_path=True)
    return {"/".join(map(str, path)): variable for path, variable in flat}


def statistics(model: tf.Module) -> list[tf.Variable]:
    """Returns the non-trainable variables for which the forward pass proposes new values.

    Such a variable, for example a moving mean, has an aggregation: how replicas combine it.
    Non-trainable variables without one are frozen, and cost a training step nothing.
    """
    return [
        variable
        for variable in model.variables
        if not variable.trainable and variable.aggregation != tf.VariableAggregation.NONE
    ]
