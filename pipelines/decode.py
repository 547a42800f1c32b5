"""Decodes serialized examples into images and labels, in chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.errors import damaged_data_message, reason
from pipelines.host import usable_cores
from pipelines.records import RecordReader
from pipelines.source import DataSplit, Source

_PORTION = 256  # examples decoded by one parallel call
# Examples decoded in one iteration of a loop in the graph. An iteration has an overhead as large as
# decoding a small image; each decode call in the graph adds 5 ms to the start.
DECODE_CHUNK = 16
# Images of one stored size with at most this many values are decoded, then resized as one batch.
# For larger images, the overhead of one loop iteration per image is small.
_SMALL = 1 << 16


def decode_batch(
    source: Source, serialized: tf.Tensor, chunk: int = DECODE_CHUNK
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes serialized examples in the graph.

    Args:
      source: the data set.
      serialized: string [k], k >= 1.
      chunk: number of examples decoded in one iteration of the loop.

    Returns:
      (images [k, H, W, C], labels int32 [k]).
    """
    if source.pictures is None:
        assert source.decode_stored is not None
        label = tf.TensorSpec([], tf.int32)
        return _decoded(source, source.decode, source.decode_stored, serialized, chunk, label)
    image_key, label_key = source.pictures.fields
    stored = {
        image_key: tf.io.FixedLenFeature([], tf.string),
        label_key: tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(serialized, stored)
    return decode_images(source, parsed[image_key], chunk), tf.cast(parsed[label_key], tf.int32)


def decode_images(source: Source, encoded: tf.Tensor, chunk: int = DECODE_CHUNK) -> tf.Tensor:
    """Decodes encoded images in the graph: string [k >= 1] -> [k, H, W, C]."""
    assert source.pictures is not None
    return _decoded(source, source.pictures.decode, source.pictures.decode_stored, encoded, chunk)


def _decoded(
    source: Source,
    decode: Callable,
    decode_stored: Callable,
    stored: tf.Tensor,
    chunk: int,
    label: tf.TensorSpec | None = None,
) -> Any:
    """Decodes images and resizes them if necessary; also returns labels if `label` is a spec."""

    def with_label(image: tf.TensorSpec) -> Any:
        return image if label is None else (image, label)

    image = tf.TensorSpec(source.image_shape, source.dtype)
    if source.stored_size == source.image_shape[:2]:
        return _each(decode, stored, with_label(image), chunk)
    as_stored = tf.TensorSpec(source.stored_shape, source.dtype)
    if not as_stored.shape.is_fully_defined() or as_stored.shape.num_elements() > _SMALL:
        return tf.map_fn(decode, stored, fn_output_signature=with_label(image))
    found = _each(decode_stored, stored, with_label(as_stored), chunk)
    return source.resize(found) if label is None else (source.resize(found[0]), found[1])


def _each(decode: Callable, stored: tf.Tensor, made: Any, chunk: int) -> Any:
    """Applies `decode`, a `tf.function` of few operations, to each element of `stored`.

    A loop iteration decodes `chunk` elements; each remaining element takes one iteration. If the
    number of elements is static and at most `chunk`, there is no loop.
    """
    count = stored.shape[0]
    if count is not None and count <= chunk:
        return tf.nest.map_structure(lambda *each: tf.stack(each), *map(decode, tf.unstack(stored)))
    turns = (tf.shape(stored)[0] if count is None else count) // chunk

    def several(some: tf.Tensor) -> Any:
        return _each(decode, tf.ensure_shape(some, [chunk]), made, chunk)

    def stacked(spec: tf.TensorSpec) -> tf.TensorSpec:
        return tf.TensorSpec([chunk, *spec.shape], spec.dtype)

    first = tf.map_fn(
        several,
        tf.reshape(stored[: turns * chunk], [-1, chunk]),
        fn_output_signature=tf.nest.map_structure(stacked, made),
    )
    last = tf.map_fn(decode, stored[turns * chunk :], fn_output_signature=made)
    return tf.nest.map_structure(
        lambda many, few: tf.concat([tf.reshape(many, [-1, *few.shape[1:]]), few], 0), first, last
    )


# Disables AutoGraph for a function of `tf.data.Dataset.map`: the conversion is not needed and takes
# a third of a second.
as_it_is = tf.autograph.experimental.do_not_convert


def options_without_autotune() -> tf.data.Options:
    """Returns options that disable the autotuning of a `tf.data` pipeline.

    The autotuner is a thread that sleeps for up to a minute at a time and sometimes misses the
    request to stop. Destroying the pipeline then waits for that thread.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _serialized(records: DataSplit) -> tf.data.Dataset:
    """Returns the serialized examples of a split in file order, read sequentially."""
    dataset = None
    for path, first, stop in records.ranges:
        part = tf.data.TFRecordDataset(path, buffer_size=1 << 20).skip(first).take(stop - first)
        dataset = part if dataset is None else dataset.concatenate(part)
    assert dataset is not None, "a split holds at least one example"
    return dataset


def decode_split(
    source: Source, records: DataSplit, progress: Callable[[int], None] = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a whole split to (images [n, H, W, C], labels int32 [n]).

    Args:
      source: the data set, which decodes the examples.
      records: the split.
      progress: called periodically with the number of examples decoded since the last call.

    Raises:
      ValueError: when an example cannot be decoded.
    """
    reader = RecordReader(records.ranges)  # raises an error that names a damaged or truncated file
    images = np.empty((len(records), *source.image_shape), source.dtype)
    labels = np.empty(len(records), np.int32)
    dataset = (
        _serialized(records)
        .batch(_PORTION)
        .map(
            as_it_is(lambda some: decode_batch(source, some)),
            num_parallel_calls=usable_cores(),
            deterministic=True,
        )
        .with_options(options_without_autotune())
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
        raise ValueError(damaged_data_message(where, reason(error))) from None
    return images, labels


def _culprit(
    source: Source, reader: RecordReader, first: int, error: tf.errors.OpError
) -> tuple[int, tf.errors.OpError]:
    """Returns the index of the first example from `first` that cannot be decoded, and its error.

    Chunks are decoded in parallel and fail as a whole, so the examples are tried one by one.
    """
    for number in range(first, len(reader)):
        try:
            source.decode(tf.constant(reader.read(np.array([number]))[0][0]))
        except tf.errors.OpError as found:
            return number, found
    return first, error
