"""The first batch of a run, as it is stored and as the network gets it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import pipelines
from engine.assembly.data import cache_dir
from engine.config.schema import Config
from engine.core.augmentation import augmenter, preprocessed


class FirstBatch(NamedTuple):
    """The examples of the first training step, before and after preprocessing and augmentation."""

    examples: pipelines.Examples  # decoded, without preprocessing, k of them
    batch: pipelines.Batch  # augmented and preprocessed, one device's rows of one micro-batch

    @property
    def rows(self) -> int:
        """Number of rows of `batch`."""
        return int(self.batch.mask.shape[0])


def first_batch(config: Config, source: pipelines.Source, rows: int | None = None) -> FirstBatch:
    """Reads the examples of the first step and augments and preprocesses some of them, eagerly.

    Args:
      config: options of the run.
      source: data set, with fitted preprocessing.
      rows: maximum number of rows of the batch; None: all examples of the step.

    Raises:
      ValueError: if an example is damaged or cannot be decoded.
      OSError: if a file of the data set cannot be read.
    """
    augmentation = pipelines.augmentation_of(config.data.augment, source)
    mixes = augmentation is not None and augmentation.mixes
    examples = pipelines.read_step_examples(
        source,
        source.train,
        0,
        global_batch_size=config.training.global_batch_size,
        seed=config.run.seed,
        include_next_example=mixes,
        cache_dir=cache_dir(config),
    )
    count = len(examples.indices) - mixes
    taken = min(count, rows or count)
    augment = None
    if augmentation is not None:
        augment = augmenter(
            augmentation, source.classes, config.run.seed, preprocess=source.preprocess
        )
    given = examples.part(0, taken + mixes)
    fixed = pipelines.fixed_numbers(config.run.seed, given.indices)
    decoded = pipelines.unpadded_batch(given.inputs, given.targets, taken, fixed=fixed)
    return FirstBatch(examples.part(0, count), preprocessed(decoded, augment, source.preprocess))


def abbreviated(values: Any, most: int = 8) -> str:
    """Formats the first `most` numbers of an array, such as "0.5, 1, 2, ..."."""
    flat = np.asarray(values).reshape(-1)
    numbers = [f"{x:.4g}" if flat.dtype.kind == "f" else str(x) for x in flat[:most].tolist()]
    return ", ".join(numbers) + (", ..." if flat.size > most else "")
