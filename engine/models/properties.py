"""Properties of a model (`tf.Module`) that the engine needs: variables and use of randomness.

A model may have two attributes, `randomness` and `cross_example`. `randomness` is one of:

- "none" (the default): the model draws no random numbers.
- "per_example": the random numbers of an example do not depend on the number of devices, as with
  `ForwardContext.noise`.
- "per_microbatch": the random numbers depend on the micro-batch, as with `ForwardContext.seed`, so
  that another number of devices gives the same results only with `--shards`.

`cross_example` is whether the output for an example depends on other examples of its micro-batch.
Verification relies on neither attribute, but examines what a training step does.
"""

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
