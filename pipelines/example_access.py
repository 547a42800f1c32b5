"""Reads and decodes examples of a split by index."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from pipelines import cache, order
from pipelines.decode import DECODE_CHUNK, decode_batch, decode_images, decode_split
from pipelines.errors import damaged_data_message, reason
from pipelines.records import RecordReader
from pipelines.source import DataSplit, Source


class Examples(NamedTuple):
    """Decoded examples of a split, without augmentation.

    Attributes:
      numbers: int [k], indices in the split.
      images: uint8 or float32 [k, H, W, C].
      labels: int32 [k].
    """

    numbers: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def read_step_examples(
    source: Source,
    records: DataSplit,
    step: int,
    *,
    global_batch_size: int,
    seed: int,
    include_next_example: bool = False,
) -> Examples:
    """Returns the examples of a training step, before augmentation, in row order.

    Args:
      source: the data set, which decodes the examples.
      records: the training split.
      step: training step, from 0.
      global_batch_size: number of examples in a full step, over all replicas.
      seed: seed of the order of each epoch.
      include_next_example: whether the example after the last row is appended, for mixup.
    """
    epoch, place = divmod(step, order.steps_per_epoch(len(records), global_batch_size))
    first = place * global_batch_size
    end = min(first + global_batch_size, len(records)) + include_next_example
    places = np.arange(first, end) % len(records)
    return read_examples(source, records, order.permutation_at(seed, epoch, len(records), places))


def read_examples(
    source: Source, records: DataSplit, numbers: np.ndarray, cache_dir: str | None = None
) -> Examples:
    """Reads and decodes examples by index, in the given order.

    Args:
      source: the data set, which decodes the examples.
      records: the split.
      numbers: int [k], indices, each in 0 .. len(records) - 1.
      cache_dir: directory where the record index is cached; None: it is not cached, and the whole
        split is read to build it.

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    pictures = source.pictures if cache_dir is not None else None
    fields = pictures.fields if pictures else None
    stored, labels = RecordReader(records.ranges, fields, cache_dir).read(numbers)
    try:
        with tf.device("CPU:0"):
            if pictures:
                images = _graph(decode_images, source, len(numbers))(tf.constant(stored))
                return Examples(numbers, images.numpy(), labels)
            images, found = _graph(decode_batch, source, len(numbers))(tf.constant(stored))
            return Examples(numbers, images.numpy(), found.numpy())
    except tf.errors.OpError as error:
        raise ValueError(
            damaged_data_message(f"{source.name}, {records.name}", reason(error))
        ) from None


def read_stored_images(
    source: Source, records: DataSplit, numbers: np.ndarray, cache_dir: str
) -> Iterator[np.ndarray]:
    """Yields images by index, in the given order, at their stored sizes.

    Args:
      source: the data set.
      records: the split.
      numbers: int [k], indices, each in 0 .. len(records) - 1.
      cache_dir: directory where the record index is cached.

    Yields:
      An image, uint8 or float32 [h, w, C].

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    assert source.decode_stored is not None
    fields = source.pictures.fields if source.pictures else None
    reader = RecordReader(records.ranges, fields, cache_dir)
    for number in numbers:
        (stored,), _ = reader.read(np.array([number]))
        try:
            with tf.device("CPU:0"):
                if source.pictures:
                    image = source.pictures.decode_stored(tf.constant(stored))
                else:
                    image, _ = source.decode_stored(tf.constant(stored))
                yield image.numpy()
        except tf.errors.OpError as error:
            where = f"{source.name}, {records.name}, example {number}"
            raise ValueError(damaged_data_message(where, reason(error))) from None


def _graph(decode: Callable, source: Source, examples: int) -> Callable:
    """Returns a function that decodes `examples` examples.

    It is a `tf.function` for many examples; for a few, it runs eagerly, which saves tracing.
    """
    if examples <= DECODE_CHUNK:
        return functools.partial(decode, source)
    return _traced(decode, source)


@functools.lru_cache(maxsize=8)
def _traced(decode: Callable, source: Source) -> Callable:
    """Returns a `tf.function` that decodes any number of examples, traced once per source."""

    def call(stored: tf.Tensor) -> Any:
        return decode(source, stored)

    return tf.function(call, [tf.TensorSpec([None], tf.string)], autograph=False)


def read_labels(source: Source, records: DataSplit, cache_dir: str) -> np.ndarray:
    """Returns the labels of a split in file order, int32 [n].

    Images are decoded only if they are neither stored encoded nor cached in decoded form.

    Args:
      source: the data set, which decodes the examples.
      records: the split.
      cache_dir: directory of cached decoded examples and record indices.

    Raises:
      ValueError: when a file is damaged.
      OSError: when a file cannot be read.
    """
    if source.pictures is None:
        cached = cache.load(cache_dir, cache.key(records.ranges, source.recipe))
        return (cached or decode_split(source, records))[1]
    return RecordReader(records.ranges, source.pictures.fields, cache_dir).labels()
