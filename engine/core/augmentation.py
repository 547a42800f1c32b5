"""Augmentation with stateless random numbers: a pure function of (seed, epoch, example)."""

from __future__ import annotations

from collections.abc import Callable

from engine.models.stateless_random import StatelessRNG
from pipelines import Augmentation, Batch

_STREAM = -1  # layers draw from streams 0, 1, 2, ...


def augmenter(
    augmentation: Augmentation, classes: int, seed: int, compiled: bool = False
) -> Callable[[Batch], Batch]:
    """Returns the function that augments a training batch, in the graph, which XLA may compile.

    The random numbers of an example depend on its position in the epoch's order, so they do not
    depend on the batch size or on the number of replicas, micro-batches and shards (L3).
    """

    def augmented(batch: Batch) -> Batch:
        noise = StatelessRNG(seed, batch.epoch, batch.position, compiled=compiled)
        numbers = noise.uniform(_STREAM, batch.inputs.shape[0], augmentation.numbers)
        inputs, targets = augmentation(batch.inputs, batch.targets, numbers, classes)
        return batch._replace(inputs=inputs, targets=targets)

    return augmented
