"""Decodes serialized examples into images and labels, in chunks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.errors import damaged_data_message, reason
from pipelines.features import Pictures
from pipelines.host import usable_cores
from pipelines.records import RecordReader
from pipelines.source import DataSplit, Source

_BATCH = 256  # examples decoded by one parallel call
# Examples decoded in one iteration of a loop in the graph: an iteration takes as long as decoding a
# small image, but each decode call in the graph adds 5 ms to the start.
DECODE_CHUNK = 16
# Images of one stored size with at most this many values are decoded, then resized as one batch.
_SMALL = 1 << 16


def decode_batch(
    source: Source, serialized: tf.Tensor, chunk: int = DECODE_CHUNK
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes serialized `tf.train.Example`s in the graph, `chunk` of them per loop iteration.

    Maps string [k >= 1] to (images of source.dtype [k, H, W, C], resized; labels int32 [k]).
    """
    if source.pictures is None:
        return _decode(source, source, serialized, chunk)
    image_key, label_key = source.pictures.fields
    image, label = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
    parsed = tf.io.parse_example(serialized, {image_key: image, label_key: label})
    return decode_images(source, parsed[image_key], chunk), tf.cast(parsed[label_key], tf.int32)


def decode_images(source: Source, encoded: tf.Tensor, chunk: int = DECODE_CHUNK) -> tf.Tensor:
    """Decodes and resizes encoded images in the graph: string [k >= 1] -> [k, H, W, C]."""
    assert source.pictures is not None
    return _decode(source, source.pictures, encoded, chunk)


def _decode(source: Source, decoder: Source | Pictures, stored: tf.Tensor, chunk: int) -> Any:
    """Decodes and resizes examples to (images, labels) if `decoder` is a Source, else images."""

    def signature(shape: Any) -> Any:
        image = tf.TensorSpec(shape, source.dtype)
        return (image, tf.TensorSpec([], tf.int32)) if decoder is source else image

    if source.stored_size == source.image_shape[:2]:
        return _each(decoder.decode, stored, signature(source.image_shape), chunk)
    shape = tf.TensorShape(source.stored_shape)
    if not shape.is_fully_defined() or shape.num_elements() > _SMALL:
        return tf.map_fn(decoder.decode, stored, fn_output_signature=signature(source.image_shape))
    assert decoder.decode_stored is not None
    decoded = _each(decoder.decode_stored, stored, signature(shape), chunk)
    return (source.resize(decoded[0]), decoded[1]) if decoder is source else source.resize(decoded)


def _each(decode: Callable, stored: tf.Tensor, signature: Any, chunk: int) -> Any:
    """Maps `decode` over `stored` and stacks the outputs, as `tf.map_fn`, `chunk` per iteration.

    `signature` is the `tf.TensorSpec` structure of one output. A second loop decodes the remainder,
    one per iteration. If the number of elements is static and at most `chunk`, there is no loop.
    """
    count = stored.shape[0]
    if count is not None and count <= chunk:
        return tf.nest.map_structure(lambda *each: tf.stack(each), *map(decode, tf.unstack(stored)))
    chunked = (tf.shape(stored)[0] if count is None else count) // chunk * chunk
    first = tf.map_fn(
        lambda elements: _each(decode, tf.ensure_shape(elements, [chunk]), signature, chunk),
        tf.reshape(stored[:chunked], [-1, chunk]),
        fn_output_signature=tf.nest.map_structure(
            lambda spec: tf.TensorSpec([chunk, *spec.shape], spec.dtype), signature
        ),
    )
    last = tf.map_fn(decode, stored[chunked:], fn_output_signature=signature)
    return tf.nest.map_structure(
        lambda many, few: tf.concat([tf.reshape(many, [-1, *few.shape[1:]]), few], 0), first, last
    )


# Disables AutoGraph for a function of `tf.data.Dataset.map`: its conversion takes 0.3 s.
without_autograph = tf.autograph.experimental.do_not_convert


def options_without_autotune() -> tf.data.Options:
    """Returns options that disable the autotuning of a `tf.data` pipeline.

    Destroying a pipeline can wait for the autotuner, a thread that sleeps for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def decode_split(
    source: Source, records: DataSplit, progress: Callable[[int], None] = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a whole split to (images of source.dtype [n, H, W, C], labels int32 [n]).

    Calls `progress` periodically with the number of examples decoded since the last call.

    Raises:
      ValueError: when a file is missing or damaged, or an example cannot be decoded.
    """
    reader = RecordReader(records.ranges)  # raises an error that names a damaged or truncated file
    images = np.empty((len(records), *source.image_shape), source.dtype)
    labels = np.empty(len(records), np.int32)
    files = [
        tf.data.TFRecordDataset(path, buffer_size=1 << 20).skip(first).take(stop - first)
        for path, first, stop in records.ranges
    ]
    decode = without_autograph(lambda serialized: decode_batch(source, serialized))
    dataset = (
        functools.reduce(tf.data.Dataset.concatenate, files)
        .batch(_BATCH)
        .map(decode, num_parallel_calls=usable_cores(), deterministic=True)
        .with_options(options_without_autotune())
    )
    done = 0
    try:
        for batch_images, batch_labels in dataset.as_numpy_iterator():
            stop = done + len(batch_labels)
            images[done:stop], labels[done:stop] = batch_images, batch_labels
            progress(stop - done)
            done = stop
    except tf.errors.OpError as error:
        index, error = _first_undecodable(source, reader, done, error)
        where = f"{source.name}, {records.name}, example {index}"
        raise ValueError(damaged_data_message(where, reason(error))) from None
    return images, labels


def _first_undecodable(
    source: Source, reader: RecordReader, first: int, error: tf.errors.OpError
) -> tuple[int, tf.errors.OpError]:
    """Returns (index, error) of the first undecodable example from `first`; else (first, error)."""
    for index in range(first, len(reader)):
        try:
            source.decode(tf.constant(reader.read(np.array([index]))[0][0]))
        except tf.errors.OpError as example_error:
            return index, example_error
    return first, error
