"""Properties of a model (`tf.Module`) that the engine needs: statistics and use of randomness.

A model may have an attribute `randomness`:

- "none" (the default): it draws no random numbers.
- "per_example": the random numbers of an example do not depend on the devices, as with
  `ForwardContext.noise`.
- "per_microbatch": they depend on the micro-batch, as with `ForwardContext.seed`, so that other
  devices compute the same only with `--shards`.

and an attribute `cross_example`: whether the output of an example depends on the other examples of
its micro-batch.
"""

from __future__ import annotations

import tensorflow as tf

RANDOMNESS = ("none", "per_example", "per_microbatch")


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


def randomness(model: tf.Module) -> str:
    """Returns the model's `randomness`; raises ValueError if it is none of `RANDOMNESS`."""
    kind = getattr(model, "randomness", "none")
    if kind not in RANDOMNESS:
        raise ValueError(f"the model says randomness = {kind!r}: must be in {RANDOMNESS}")
    return kind


def is_cross_example(model: tf.Module) -> bool:
    """Returns whether the output of an example depends on other examples."""
    return bool(getattr(model, "cross_example", False))
