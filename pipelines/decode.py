"""Serialized examples -> pixels and labels, a portion at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.errors import damaged, reason
from pipelines.records import RecordReader
from pipelines.source import Records, Source

_PORTION = 256  # examples that one thread decodes at a time
AT_ONCE = 128  # that one turn of a loop in the graph decodes: a turn costs as much as a small image
# Values of an image, up to which many of one size are held and resized together; a turn of a loop
# for each costs little where they are larger.
_SMALL = 1 << 16


def decode_batch(source: Source, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Serialized examples, string [k >= 1] -> (images [k, H, W, C], int32 [k]), in the graph."""
    if source.pictures is None:
        assert source.decode_stored is not None
        label = tf.TensorSpec([], tf.int32)
        return _decoded(source, source.decode, source.decode_stored, serialized, label)
    image_key, label_key = source.pictures.fields
    stored = {
        image_key: tf.io.FixedLenFeature([], tf.string),
        label_key: tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(serialized, stored)
    return decode_pictures(source, parsed[image_key]), tf.cast(parsed[label_key], tf.int32)


def decode_pictures(source: Source, encoded: tf.Tensor) -> tf.Tensor:
    """Encoded images, string [k >= 1] -> [k, H, W, C], in the graph."""
    assert source.pictures is not None
    return _decoded(source, source.pictures.decode, source.pictures.decode_stored, encoded)


def _decoded(
    source: Source,
    decode: Callable,
    decode_stored: Callable,
    stored: tf.Tensor,
    label: tf.TensorSpec | None = None,
) -> Any:
    """Images of all, resized where they are to be, and labels where there is a spec of them."""

    def with_label(image: tf.TensorSpec) -> Any:
        return image if label is None else (image, label)

    image = tf.TensorSpec(source.image_shape, source.dtype)
    if source.stored_size == source.image_shape[:2]:
        return _each(decode, stored, with_label(image))
    as_stored = tf.TensorSpec(source.stored_shape, source.dtype)
    if not as_stored.shape.is_fully_defined() or as_stored.shape.num_elements() > _SMALL:
        return tf.map_fn(decode, stored, fn_output_signature=with_label(image))
    found = _each(decode_stored, stored, with_label(as_stored))
    return source.resize(found) if label is None else (source.resize(found[0]), found[1])


def _each(decode: Callable, stored: tf.Tensor, made: Any) -> Any:
    """`decode`, a tf.function of few operations, of each.

    In turns of several; those left over take a turn each.
    """
    count = stored.shape[0]
    if count is not None and count <= AT_ONCE:
        return tf.nest.map_structure(lambda *each: tf.stack(each), *map(decode, tf.unstack(stored)))
    turns = (tf.shape(stored)[0] if count is None else count) // AT_ONCE

    def several(some: tf.Tensor) -> Any:
        return _each(decode, tf.ensure_shape(some, [AT_ONCE]), made)

    def stacked(spec: tf.TensorSpec) -> tf.TensorSpec:
        return tf.TensorSpec([AT_ONCE, *spec.shape], spec.dtype)

    first = tf.map_fn(
        several,
        tf.reshape(stored[: turns * AT_ONCE], [-1, AT_ONCE]),
        fn_output_signature=tf.nest.map_structure(stacked, made),
    )
    last = tf.map_fn(decode, stored[turns * AT_ONCE :], fn_output_signature=made)
    return tf.nest.map_structure(
        lambda many, few: tf.concat([tf.reshape(many, [-1, *few.shape[1:]]), few], 0), first, last
    )


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
        raise ValueError(damaged(where, reason(error))) from None
    return images, labels


def _culprit(
    source: Source, reader: RecordReader, first: int, error: tf.errors.OpError
) -> tuple[int, tf.errors.OpError]:
    """The first example at or behind `first` that cannot be decoded, and why.

    Portions are decoded side by side and fail as a whole, so it is looked for one by one.
    """
    for number in range(first, len(reader)):
        try:
            source.decode(tf.constant(reader.read(np.array([number]))[0][0]))
        except tf.errors.OpError as found:
            return number, found
    return first, error
