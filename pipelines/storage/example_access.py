"""Reads and decodes examples of a split by index."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines import nests, order
from pipelines.errors import damaged_data_message, reason
from pipelines.nests import Nest, Spec
from pipelines.sequential import SequentialReader
from pipelines.source import Source
from pipelines.splits import ArrayTable, DataSplit, whole
from pipelines.storage import cache
from pipelines.storage.decode import (
    DECODE_CHUNK,
    constants,
    decode_batch,
    decode_cropped,
    decode_split,
    traced,
)


class Examples(NamedTuple):
    """Decoded examples of a split, before preprocessing and the augmentation of batches."""

    indices: np.ndarray  # int [k], in the split
    inputs: Nest  # arrays [k, ...]
    targets: Nest  # arrays [k, ...]

    def part(self, start: int, stop: int) -> Examples:
        """Returns the examples with positions from `start` to `stop`, without `stop`."""
        return Examples(*(tf.nest.map_structure(lambda x: x[start:stop], each) for each in self))


def read_step_examples(
    source: Source,
    split: DataSplit,
    step: int,
    *,
    global_batch_size: int,
    seed: int,
    include_next_example: bool = False,
    cache_dir: str | None = None,
) -> Examples:
    """Returns the examples of a training step, in the order of its global batch.

    These are the examples that the feed of a training run supplies, with the random crop of the
    source.

    Args:
      source: the data set.
      split: the split that is trained on.
      step: step of the run, from 0.
      global_batch_size: number of examples of a step, over all replicas.
      seed: seed of the run.
      include_next_example: whether to append the next example of the epoch (at the end of the
        epoch, its first one), as for mixup.
      cache_dir: directory where a record index that has to be built is cached; None: it is not
        cached.

    Raises:
      ValueError: when a file is damaged, an example cannot be decoded, or the split or a batch is
        empty.
      OSError: when a file cannot be read.
    """
    epoch, step_in_epoch = divmod(step, order.steps_per_epoch(len(split), global_batch_size))
    first = step_in_epoch * global_batch_size
    end = min(first + global_batch_size, len(split)) + include_next_example
    positions = np.arange(first, end) % len(split)
    indices, draws = order.permutation_at(seed, epoch, len(split), positions), None
    reader = split.reader(cache_dir, only=indices)
    if isinstance(reader, SequentialReader):
        indices, stored = positions, reader.read_epoch(seed, epoch, positions)
    else:
        stored = reader.read(indices)
    if source.crop is not None:
        draws = source.crop.draws(seed, np.full(len(positions), epoch), positions)
    return Examples(indices, *_decoded(source, split.name, reader.spec, stored, draws))


def read_examples(
    source: Source, split: DataSplit, indices: np.ndarray, cache_dir: str | None = None
) -> Examples:
    """Reads and decodes examples by index, int [k], in the given order.

    If `cache_dir` is not None, a record index that has to be built is cached in it.

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    reader = split.reader(cache_dir, only=indices)
    return Examples(indices, *_decoded(source, split.name, reader.spec, reader.read(indices)))


def _decoded(
    source: Source, where: str, spec: Spec, stored: Nest, draws: np.ndarray | None = None
) -> tuple[Nest, Nest]:
    """Decodes stored examples of a spec to (inputs, targets), nests of arrays [k, ...].

    With `draws`, crops images as in training; see `ResizedCrop.draws`.

    Raises:
      ValueError: when an example cannot be decoded; the message names the split, `where`.
    """
    if source.decode is None and draws is None:
        return stored
    with _decoding(source, where):
        if draws is not None:
            decoded = decode_cropped(source, constants(stored), constants(draws))
        elif len(tf.nest.flatten(stored)[0]) <= DECODE_CHUNK:  # eager, which saves tracing
            decoded = decode_batch(source, constants(stored))
        else:
            decoded = traced(source, spec)(constants(stored))
        return tf.nest.map_structure(lambda leaf: leaf.numpy(), decoded)


def source_of(source: Source, examples: Examples) -> Source:
    """Returns a source whose training split is the given examples, in memory, and no other split.

    Specs, classes and preprocessing are those of `source`.
    """
    arrays = ArrayTable((examples.inputs, examples.targets))
    return dataclasses.replace(
        source,
        train=whole("train", arrays, len(examples.indices)),
        validation_sets={},
        test=None,
        decode=None,
        decode_stored=None,
        stored_shape=None,
        crop=None,
    )


def read_stored_images(
    source: Source, split: DataSplit, indices: np.ndarray, cache_dir: str
) -> Iterator[np.ndarray]:
    """Yields images by index, int [k], at their stored sizes: uint8 or float32 [h, w, C].

    `cache_dir` is as for `DataSplit.reader`.

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    reader = split.reader(cache_dir, only=indices)
    for index in indices:
        stored = reader.read(np.array([index]))
        with _decoding(source, f"{split.name}, {reader.location(index)}"):
            example = tf.nest.map_structure(lambda leaf: leaf[0], constants(stored))
            image, _ = source.decode_unresized(example)
            array = image.numpy()
        yield array


@contextlib.contextmanager
def _decoding(source: Source, where: str) -> Iterator[None]:
    """Runs a block on the CPU; converts its TensorFlow errors to ValueErrors that name `where`."""
    try:
        with tf.device("CPU:0"):
            yield
    except tf.errors.OpError as error:
        where = f"{source.name}, {where}"
        raise ValueError(damaged_data_message(where, reason(error), source.remedy)) from None


def read_targets(
    source: Source, split: DataSplit, cache_dir: str, most_bytes: int | None = None
) -> Nest:
    """Returns the targets of a split in its order, a nest of arrays [n, ...]; labels are int32 [n].

    Examples are decoded only if their targets are not stored separately and the decoded examples
    are not cached in `cache_dir`. With `most_bytes`, of a split whose decoded examples take more,
    and whose targets are not stored separately, only the first examples are read.

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    example_bytes = max(nests.example_bytes(source.decoded), 1)
    if most_bytes is not None and len(split) * example_bytes > most_bytes:
        first = max(1, most_bytes // example_bytes)
        part = split.part(0, first, f"the first {first:,} of {split.name}")
        if part.reader(cache_dir).targets() is None:
            split = part
    reader = split.reader(cache_dir)
    targets = reader.targets()
    if targets is None:
        decoded = None
        if source.decode is not None:
            decoded = cache.load(cache_dir, cache.key(split, source.recipe), source.decoded)
        _, targets = decoded if decoded is not None else decode_split(source, split)
    return targets
