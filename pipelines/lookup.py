"""Some examples of a split, read on their own: to be looked at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from pipelines import order
from pipelines.decode import AT_ONCE, decode_all, decode_batch, decode_pictures
from pipelines.errors import damaged, reason
from pipelines.records import RecordReader
from pipelines.source import Records, Source


class Examples(NamedTuple):
    """Some examples of a split, as they are stored.

    numbers: int32 [k], places in the split.
    images: uint8 or float32 [k, H, W, C].
    labels: int32 [k].
    """

    numbers: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def examples_of_step(
    source: Source,
    records: Records,
    step: int,
    *,
    global_batch_size: int,
    seed: int,
    look_ahead: bool = False,
) -> Examples:
    """What a training step sees, before augmentation, in the order of its rows.

    Args:
      source: how an example is decoded.
      records: the training split.
      step: from 0.
      global_batch_size: of a full step.
      seed: of the order.
      look_ahead: whether the last row is mixed with the example after it, which then comes last.
    """
    epoch, place = divmod(step, order.steps_per_epoch(len(records), global_batch_size))
    first = place * global_batch_size
    end = min(first + global_batch_size, len(records)) + look_ahead
    places = np.arange(first, end) % len(records)
    return examples_of(source, records, order.permuted(seed, epoch, len(records), places))


def examples_of(
    source: Source, records: Records, numbers: np.ndarray, cache_dir: str | None = None
) -> Examples:
    """Some examples by their numbers, in that order.

    Args:
      source: how an example is decoded.
      records: the split.
      numbers: int [k], each in 0 .. len(records) - 1.
      cache_dir: where it is kept between starts where each example lies; None: nowhere, and the
        split is read through for it.

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when one cannot be read.
    """
    pictures = source.pictures if cache_dir is not None else None
    fields = pictures.fields if pictures else None
    stored, labels = RecordReader(records.ranges, fields, cache_dir).read(numbers)
    try:
        with tf.device("CPU:0"):
            if pictures:
                images = _graph(decode_pictures, source, len(numbers))(tf.constant(stored))
                return Examples(numbers, images.numpy(), labels)
            images, found = _graph(decode_batch, source, len(numbers))(tf.constant(stored))
            return Examples(numbers, images.numpy(), found.numpy())
    except tf.errors.OpError as error:
        raise ValueError(damaged(f"{source.name}, {records.name}", reason(error))) from None


def stored_images(
    source: Source, records: Records, numbers: np.ndarray, cache_dir: str
) -> Iterator[np.ndarray]:
    """Some images of their stored sizes, not resized, by their numbers, in that order.

    Args:
      source: the data set.
      records: the split.
      numbers: int [k], each in 0 .. len(records) - 1.
      cache_dir: where it is kept between starts where each example lies.

    Returns:
      Images, uint8 or float32 [h, w, C], one after the other.

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when one cannot be read.
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
            raise ValueError(damaged(where, reason(error))) from None


def _graph(decode: Callable, source: Source, examples: int) -> Callable:
    """What decodes so many: many in a graph, side by side; a few without the time to trace it."""
    if examples <= AT_ONCE:
        return functools.partial(decode, source)
    return _traced(decode, source)


@functools.lru_cache(maxsize=8)
def _traced(decode: Callable, source: Source) -> Callable:
    """A graph of any number of examples, traced once for a source."""

    def call(stored: tf.Tensor) -> Any:
        return decode(source, stored)

    return tf.function(call, [tf.TensorSpec([None], tf.string)], autograph=False)


def labels_of(source: Source, records: Records, cache_dir: str) -> np.ndarray:
    """The labels of a split, in file order, int32 [n]; no image is decoded where that can be.

    Args:
      source: how an example is decoded.
      records: the split.
      cache_dir: where it is kept between starts where each example lies.

    Raises:
      ValueError: when a file is damaged.
      OSError: when one cannot be read.
    """
    if source.pictures is None:
        return decode_all(source, records)[1]
    return RecordReader(records.ranges, source.pictures.fields, cache_dir).labels()
