"""Serialized examples -> pixels and labels, a portion at a time."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pipelines.records import RecordReader, damaged
from pipelines.source import Records, Source

_PORTION = 256  # examples that one thread decodes at a time
_AT_ONCE = 16  # examples that one turn of a loop in the graph decodes


def decode_batch(source: Source, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Serialized examples, string [k] -> (images [k, H, W, C], int32 [k]), in the graph.

    A turn of a loop in the graph costs as much as decoding a small image, so a turn decodes
    several; those that are left over take a turn each.
    """
    shape, dtype = source.image_shape, source.dtype
    count = serialized.shape[0]
    left_over = (tf.shape(serialized)[0] if count is None else count) // _AT_ONCE * _AT_ONCE

    def several(some: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = zip(*map(source.decode, tf.unstack(some, _AT_ONCE)), strict=True)
        return tf.stack(images), tf.stack(labels)

    images, labels = tf.map_fn(
        several,
        tf.reshape(serialized[:left_over], [-1, _AT_ONCE]),
        fn_output_signature=(
            tf.TensorSpec([_AT_ONCE, *shape], dtype),
            tf.TensorSpec([_AT_ONCE], tf.int32),
        ),
    )
    images, labels = tf.reshape(images, [-1, *shape]), tf.reshape(labels, [-1])
    if count is not None and left_over == count:
        return images, labels
    last_images, last_labels = tf.map_fn(
        source.decode,
        serialized[left_over:],
        fn_output_signature=(tf.TensorSpec(shape, dtype), tf.TensorSpec([], tf.int32)),
    )
    return tf.concat([images, last_images], 0), tf.concat([labels, last_labels], 0)


def side_by_side() -> int:
    """How many portions are decoded at a time: as many as there are cores for it."""
    return len(os.sched_getaffinity(0))


def untuned() -> tf.data.Options:
    """Options of a pipeline whose numbers are fixed.

    TensorFlow's tuner is a thread that sleeps up to a minute at a time, and now and then misses
    that it is to end: who takes the pipeline down then waits for it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _serialized(records: Records) -> tf.data.Dataset:
    """The examples of a split in file order, read from one end to the other."""
    dataset = None
    for path, first, stop in records.ranges:
        part = tf.data.TFRecordDataset(path, buffer_size=1 << 20).skip(first).take(stop - first)
        dataset = part if dataset is None else dataset.concatenate(part)
    assert dataset is not None, "a split holds at least one example"
    return dataset


def decode_all(
    source: Source, records: Records, progress: Callable[[int], None] = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a whole split: (images [n, H, W, C], labels int32 [n]).

    Args:
      source: how an example is decoded.
      records: which examples.
      progress: told how many more examples are done, now and then.

    Raises:
      ValueError: when an example cannot be decoded.
    """
    reader = RecordReader(records.ranges)  # refuses a damaged or short file by its name
    images = np.empty((len(records), *source.image_shape), source.dtype)
    labels = np.empty(len(records), np.int32)
    dataset = (
        _serialized(records)
        .batch(_PORTION)
        .map(
            lambda some: decode_batch(source, some),
            num_parallel_calls=side_by_side(),
            deterministic=True,
        )
        .with_options(untuned())
    )
    done = 0
    try:
        for some_images, some_labels in dataset.as_numpy_iterator():
            stop = done + len(some_labels)
            images[done:stop], labels[done:stop] = some_images, some_labels
            progress(stop - done)
            done = stop
    except tf.errors.OpError as error:
        number, error = _culprit(source, reader, done, error)
        where = f"{source.name}, {records.name}, example {number}"
        raise ValueError(damaged(where, error)) from None
    return images, labels


def _culprit(
    source: Source, reader: RecordReader, first: int, error: tf.errors.OpError
) -> tuple[int, tf.errors.OpError]:
    """The first example at or behind `first` that cannot be decoded, and why.

    Portions are decoded side by side and fail as a whole, so it is looked for one by one.
    """
    decode = tf.function(source.decode, autograph=False)
    for number in range(first, len(reader)):
        try:
            decode(tf.constant(reader.read(np.array([number]))[0]))
        except tf.errors.OpError as found:
            return number, found
    return first, error
