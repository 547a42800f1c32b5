"""Augmentation and preprocessing of a batch, in the graph.

The random numbers are stateless: a pure function of (seed, epoch, example).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.models.stateless_random import StatelessRNG
from pipelines import Augmentation, Batch, Nest

_STREAM = -1  # layers draw from streams 0, 1, 2, ...


def augmenter(
    augmentation: Augmentation,
    classes: int,
    seed: int,
    compiled: bool = False,
    preprocess: Callable[[Nest], Nest] | None = None,
) -> Callable[[Batch], Batch]:
    """Returns a function that augments and preprocesses a training batch, in the graph.

    The random numbers of an example depend only on the seed, the epoch and the position of the
    example in the order of the epoch, and not on the batch size or the number of replicas,
    micro-batches and shards. With mixup or CutMix, the function is given one row more than it
    returns.

    Args:
      augmentation: transforms to apply.
      classes: number of classes; mixup and CutMix return distributions over them as targets.
      seed: seed of the run.
      compiled: whether XLA compiles the function.
      preprocess: converts decoded inputs to the inputs of the model; None: a uint8 tensor is
        divided by 255, and other inputs are not scaled.
    """

    def augmented(batch: Batch) -> Batch:
        noise = StatelessRNG(seed, batch.epoch, batch.position, compiled=compiled)
        rows = tf.nest.flatten(batch.inputs)[0].shape[0]
        numbers = noise.uniform(_STREAM, rows, augmentation.numbers)
        alternating = None
        if augmentation.alternates:
            fixed = tf.zeros([rows]) if isinstance(batch.fixed, tuple) else batch.fixed
            alternating = tf.cast(tf.not_equal(fixed >= 0.5, batch.epoch % 2 == 1), tf.float32)
        inputs, targets = augmentation(
            batch.inputs, batch.targets, numbers, classes, preprocess, alternating
        )
        return batch._replace(inputs=inputs, targets=targets)

    return augmented


def preprocessed(
    batch: Batch,
    augment: Callable[[Batch], Batch] | None,
    preprocess: Callable[[Any], Any],
) -> Batch:
    """Returns a batch with augmented and preprocessed, or only preprocessed, inputs.

    Args:
      batch: batch of decoded examples.
      augment: augments and preprocesses a batch, including the targets; None: no augmentation.
      preprocess: converts decoded inputs to the inputs of the model; called only if `augment` is
        None.
    """
    return augment(batch) if augment else batch._replace(inputs=preprocess(batch.inputs))
