"""Source, task and the network of W5 as a user's file for `--load`, of Tapeline's layers.

The networks of W6 to W8 are built in.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

import tapeline as tl
from benchmarks.real import arrays
from benchmarks.real.specs import SPECS
from tapeline import models


@tl.source
def real_examples(*, workload: str, examples: int = 0) -> Any:
    """The examples of a workload.

    Args:
      workload: its name, such as W5.
      examples: number of examples; 0: those of the workload.
    """
    spec = SPECS[workload]
    inputs, targets = arrays.examples_of(spec._replace(examples=examples or spec.examples))
    if spec.network == "transformer":
        return tl.arrays(inputs=inputs, targets=targets, shuffle=False)
    classes = spec.sizes["classes"]
    return tl.arrays(inputs=inputs, targets=targets, class_names=classes, shuffle=False)


@tl.task
class NextCharacter(tl.Task):
    """Cross entropy of the next character, as a mean over the characters of a sequence."""

    def __init__(self, *, vocabulary: int = 65) -> None:
        self.metrics = {"perplexity": tl.metrics.Perplexity()}
        self._vocabulary = vocabulary

    def output_spec(self, source: Any) -> tf.TensorSpec:
        """Returns the spec of the logits, float32 [characters, vocabulary]."""
        return tf.TensorSpec([*source.targets.shape, self._vocabulary])

    def __call__(self, model: Any, batch: Any, context: Any) -> tl.TaskOutput:
        """Returns the loss of each sequence, in nats a character."""
        losses = tl.cross_entropy(batch.targets, model(batch.inputs, context))
        return tl.TaskOutput(tf.reduce_mean(losses, -1), {"perplexity": (losses,)})


@tl.model
def real_plain(outputs: tf.TensorSpec, *, width: int = 32) -> list[models.Layer]:
    """Six convolutions with batch norm, and three max pools.

    Args:
      outputs: spec of the logits.
      width: filters of the first two convolutions.
    """
    layers: list[models.Layer] = []
    for place in range(6):
        layers += [*_normed(width << place // 2), models.Activation("relu")]
        layers += [models.MaxPool()] if place % 2 else []
    return [*layers, models.Flatten(), models.Dense(outputs.shape[-1])]


def _normed(filters: int) -> list[models.Layer]:
    own = {"use_bias": False, "kernel_initializer": "he_normal"}
    convolution = models.Convolution(filters, 3, 1, 1, **own)
    return [convolution, models.BatchNorm()]
