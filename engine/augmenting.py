"""Augmentation with the engine's own random numbers: a function of (seed, epoch, example)."""

from __future__ import annotations

from collections.abc import Callable

from models import Noise
from pipelines import Augmentation, Batch

_STREAM = -1  # layers draw from streams 0, 1, 2, ...


def augmenter(
    augmentation: Augmentation, classes: int, seed: int, compiled: bool = False
) -> Callable[[Batch], Batch]:
    """Makes the function that changes a batch in training, in the graph.

    The numbers of an example are those of its place in the epoch's order, which is a pure function
    of (seed, epoch, example); so neither the batch size nor the number of replicas, micro-batches
    or shards changes them (L3).

    Args:
      augmentation: what is done to an example.
      classes: how many there are.
      seed: of the run.
      compiled: whether XLA compiles it.
    """

    def augmented(batch: Batch) -> Batch:
        noise = Noise(seed, batch.epoch, batch.place, compiled=compiled)
        numbers = noise.uniform(_STREAM, batch.inputs.shape[0], augmentation.numbers)
        inputs, targets = augmentation(batch.inputs, batch.targets, numbers, classes)
        return batch._replace(inputs=inputs, targets=targets)

    return augmented
