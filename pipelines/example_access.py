"""Reads and decodes examples of a split by index."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines import cache, order
from pipelines.decode import DECODE_CHUNK, decode_batch, decode_images, decode_split
from pipelines.errors import damaged_data_message, reason
from pipelines.records import RecordReader
from pipelines.source import DataSplit, Source


class Examples(NamedTuple):
    """Decoded examples of a split, without augmentation."""

    numbers: np.ndarray  # int [k], indices in the split
    images: np.ndarray  # uint8 or float32 [k, H, W, C]
    labels: np.ndarray  # int32 [k]


def read_step_examples(
    source: Source,
    records: DataSplit,
    step: int,
    *,
    global_batch_size: int,
    seed: int,
    include_next_example: bool = False,
) -> Examples:
    """Returns the examples of a training step, before augmentation, in the order of its batch.

    For mixup, `include_next_example` appends the next example of the epoch, or else its first one.
    Raises the errors of `read_examples`.
    """
    epoch, step_in_epoch = divmod(step, order.steps_per_epoch(len(records), global_batch_size))
    first = step_in_epoch * global_batch_size
    end = min(first + global_batch_size, len(records)) + include_next_example
    indices = order.permutation_at(seed, epoch, len(records), np.arange(first, end) % len(records))
    return read_examples(source, records, indices)


def read_examples(
    source: Source, records: DataSplit, indices: np.ndarray, cache_dir: str | None = None
) -> Examples:
    """Reads and decodes examples by index, int [k], in the given order.

    The record index is cached in `cache_dir`; None: the whole split is read to build it.

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    pictures = source.pictures if cache_dir is not None else None
    fields = pictures.fields if pictures else None
    stored, labels = RecordReader(records.ranges, fields, cache_dir).read(indices)
    with _decoding(f"{source.name}, {records.name}"):
        if pictures:
            images = _graph(decode_images, source, len(indices))(tf.constant(stored))
            return Examples(indices, images.numpy(), labels)
        images, decoded = _graph(decode_batch, source, len(indices))(tf.constant(stored))
        return Examples(indices, images.numpy(), decoded.numpy())


def read_stored_images(
    source: Source, records: DataSplit, indices: np.ndarray, cache_dir: str
) -> Iterator[np.ndarray]:
    """Yields images by index, int [k], at their stored sizes: uint8 or float32 [h, w, C].

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    assert source.decode_stored is not None
    fields = source.pictures.fields if source.pictures else None
    reader = RecordReader(records.ranges, fields, cache_dir)
    for index in indices:
        (stored,), _ = reader.read(np.array([index]))
        with _decoding(f"{source.name}, {records.name}, example {index}"):
            if source.pictures:
                image = source.pictures.decode_stored(tf.constant(stored))
            else:
                image, _ = source.decode_stored(tf.constant(stored))
            array = image.numpy()
        yield array


@contextlib.contextmanager
def _decoding(where: str) -> Iterator[None]:
    """Runs a block on the CPU; converts its TensorFlow errors to ValueErrors that name `where`."""
    try:
        with tf.device("CPU:0"):
            yield
    except tf.errors.OpError as error:
        raise ValueError(damaged_data_message(where, reason(error))) from None


def _graph(decode: Callable, source: Source, examples: int) -> Callable:
    """Returns `decode` for a source: eager for few `examples`, which saves tracing; else traced."""
    if examples <= DECODE_CHUNK:
        return functools.partial(decode, source)
    return _traced(decode, source)


@functools.lru_cache(maxsize=8)
def _traced(decode: Callable, source: Source) -> Callable:
    """Returns `decode` for a source as a `tf.function`, traced once for any number of examples."""
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda stored: decode(source, stored), signature, autograph=False)


def read_labels(source: Source, records: DataSplit, cache_dir: str) -> np.ndarray:
    """Returns the labels of a split in file order, int32 [n].

    Images are decoded only if they are neither stored encoded nor cached in decoded form.

    Raises:
      ValueError: when a file is damaged.
      OSError: when a file cannot be read.
    """
    if source.pictures is None:
        cached = cache.load(cache_dir, cache.key(records.ranges, source.recipe))
        return (cached or decode_split(source, records))[1]
    return RecordReader(records.ranges, source.pictures.fields, cache_dir).labels()
