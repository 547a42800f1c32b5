"""Decodes stored examples into inputs and targets, in chunks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.errors import damaged_data_message, reason
from pipelines.host import usable_cores
from pipelines.images.resize import Resize
from pipelines.nests import Nest, Spec
from pipelines.source import Source
from pipelines.splits import DataSplit, ExampleReader, no_progress
from pipelines.storage.records import RecordReader, RecordSplit

_BATCH = 256  # examples decoded by one parallel call
# Examples decoded in one iteration of a loop in the graph: an iteration takes as long as decoding a
# small image, but each decode call in the graph adds 5 ms to the start.
DECODE_CHUNK = 16
# Images of one stored size with at most this many values are decoded, then resized as one batch.
_SMALL = 1 << 16


def decode_batch(source: Source, stored: Nest, chunk: int = DECODE_CHUNK) -> tuple[Nest, Nest]:
    """Decodes stored examples in the graph, `chunk` of them per loop iteration.

    Maps a nest of [k >= 1, ...] to (inputs, targets), nests of [k, ...] as in `source.decoded`.
    Images to be resized that vary in size or are large are decoded one per iteration. Examples that
    are stored decoded are returned unchanged.
    """
    if source.decode is None:
        return stored
    if source.stored_shape is None or source.stored_size == source.image_shape[:2]:
        return _each(source.decode, stored, source.decoded, chunk)
    shape = tf.TensorShape(source.stored_shape)
    if not shape.is_fully_defined() or shape.num_elements() > _SMALL:
        return tf.map_fn(source.decode, stored, fn_output_signature=source.decoded)
    assert source.decode_stored is not None
    image, targets = source.decoded
    signature = tf.TensorSpec(shape, image.dtype), targets
    images, labels = _each(source.decode_stored, stored, signature, chunk)
    return source.resize(images), labels


def decode_cropped(source: Source, stored: Nest, draws: tf.Tensor) -> tuple[Nest, Nest]:
    """Decodes stored examples in the graph and crops their images at random, for training.

    Maps a nest of [k, ...] and `ResizedCrop.draws`, float64 [k, ...], to (inputs, targets), nests
    of [k, ...] as in `source.decoded`. The source has a `crop`. Images are cropped at their stored
    size, and resized to `source.image_shape`, which may change their aspect ratio.

    Raises:
      ValueError: when the inputs of the source are not one image.
    """
    assert source.crop is not None
    crop, resize = source.crop, Resize(source.image_shape[:2], "stretch", source.antialias)

    def decode(given: tuple[Nest, tf.Tensor]) -> tuple[Nest, Nest]:
        image, targets = source.decode_unresized(given[0])
        return tf.ensure_shape(resize(crop.cut(image, given[1])), source.image_shape), targets

    return tf.map_fn(decode, (stored, draws), fn_output_signature=source.decoded)


def _each(decode: Callable, stored: Nest, signature: Any, chunk: int) -> Any:
    """Maps `decode` over `stored` and stacks the outputs, as `tf.map_fn`, `chunk` per iteration.

    `signature` is the `tf.TensorSpec` structure of one output. A second loop decodes the remainder,
    one per iteration. If the number of elements is static and at most `chunk`, there is no loop.
    """
    first_leaf = tf.nest.flatten(stored)[0]
    count = first_leaf.shape[0]
    if count is not None and count <= chunk:
        leaves = zip(*map(tf.unstack, tf.nest.flatten(stored)), strict=True)
        decoded = [decode(tf.nest.pack_sequence_as(stored, list(each))) for each in leaves]
        return tf.nest.map_structure(lambda *each: tf.stack(each), *decoded)
    chunked = (tf.shape(first_leaf)[0] if count is None else count) // chunk * chunk

    def of_chunk(elements: Nest) -> Any:
        elements = tf.nest.map_structure(
            lambda leaf: tf.ensure_shape(leaf, [chunk, *leaf.shape[1:]]), elements
        )
        return _each(decode, elements, signature, chunk)

    first = tf.map_fn(
        of_chunk,
        tf.nest.map_structure(
            lambda leaf: tf.reshape(leaf[:chunked], [-1, chunk, *leaf.shape[1:]]), stored
        ),
        fn_output_signature=tf.nest.map_structure(
            lambda spec: tf.TensorSpec([chunk, *spec.shape], spec.dtype), signature
        ),
    )
    rest = tf.nest.map_structure(lambda leaf: leaf[chunked:], stored)
    last = tf.map_fn(decode, rest, fn_output_signature=signature)
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


def constants(stored: Nest) -> Nest:
    """Returns a nest of arrays as tensors; object arrays, which hold bytes, become strings."""
    return tf.nest.map_structure(tf.constant, stored)


def batched(spec: Spec) -> Spec:
    """Returns the spec of a batch of any number of examples, for the spec of one example."""
    return tf.nest.map_structure(lambda leaf: tf.TensorSpec([None, *leaf.shape], leaf.dtype), spec)


def traced(source: Source, spec: Spec) -> Callable[[Nest], tuple[Nest, Nest]]:
    """Returns `decode_batch` of a source as a `tf.function` of any number of stored examples.

    `spec` is that of a stored example. The functions of the last 8 sources and specs are kept, so
    that a repeated call does not trace again.
    """
    return _traced(source, _Hashable(nests.signature(spec), spec))


@dataclasses.dataclass(frozen=True)
class _Hashable:
    """A spec that can be a key of an `lru_cache`, by its signature; a spec itself may be a dict."""

    signature: str
    spec: Spec = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=8)
def _traced(source: Source, stored: _Hashable) -> Callable[[Nest], tuple[Nest, Nest]]:
    return tf.function(
        lambda stored: decode_batch(source, stored),
        input_signature=[batched(stored.spec)],
        autograph=False,
    )


def decode_split(
    source: Source, split: DataSplit, progress: Callable[[int], None] = no_progress
) -> tuple[Nest, Nest]:
    """Decodes a whole split to (inputs, targets), nests of arrays [n, ...] as in `source.decoded`.

    Calls `progress` periodically with the number of examples decoded since the last call.

    Raises:
      ValueError: when a file is missing or damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    reader = split.reader()  # raises an error that names a damaged or truncated file
    arrays = nests.empty(source.decoded, len(split))
    done = 0
    try:
        for batch in decoded_batches(source, split, reader):
            count = _write(arrays, tf.nest.flatten(batch), done)
            progress(count)
            done += count
    except tf.errors.OpError as error:
        index, error = _first_undecodable(source, reader, done, len(split), error)
        where = f"{source.name}, {split.name}, {reader.location(index)}"
        raise ValueError(damaged_data_message(where, reason(error), source.remedy)) from None
    return arrays


def _write(arrays: Nest, batch: Sequence[np.ndarray], start: int) -> int:
    """Copies a batch, a list of leaves [k, ...], into rows `start` to `start + k`; returns k."""
    count = 0
    for array, values in zip(tf.nest.flatten(arrays), batch, strict=True):
        count = len(values)
        array[start : start + count] = values
    return count


def decoded_batches(source: Source, split: DataSplit, reader: ExampleReader) -> Iterator[Nest]:
    """Yields the decoded examples of a split in order, as batches (inputs, targets) of arrays.

    A batch is nests of arrays [k, ...], with k at most 256.

    Raises:
      ValueError, OSError: as `reader.read`.
      tf.errors.OpError: when an example cannot be decoded, or a TFRecord file cannot be read.
    """
    if source.decode is None:
        for start in range(0, len(split), _BATCH):
            yield reader.read(np.arange(start, min(start + _BATCH, len(split))))
        return
    if isinstance(split, RecordSplit) and isinstance(reader, RecordReader):
        yield from _decoded_records(source, split)
        return
    decode = traced(source, reader.spec)
    starts = iter(range(0, len(split), _BATCH))

    def decoded(start: int) -> Nest:
        stored = reader.read(np.arange(start, min(start + _BATCH, len(split))))
        with tf.device("CPU:0"):
            return tf.nest.map_structure(lambda leaf: leaf.numpy(), decode(constants(stored)))

    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool:
        ahead: list[Future[Nest]] = []
        for start in starts:
            ahead.append(pool.submit(decoded, start))
            if len(ahead) > usable_cores():
                yield ahead.pop(0).result()
        for future in ahead:
            yield future.result()


def _decoded_records(source: Source, split: RecordSplit) -> Iterator[Nest]:
    """Yields the decoded examples of TFRecord files as batches (inputs, targets) of [k, ...].

    Raises:
      tf.errors.OpError: when an example cannot be decoded, or a file cannot be read.
    """

    def stored(serialized: tf.Tensor) -> Nest:
        if split.fields is None:
            return serialized
        image, label = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
        parsed = tf.io.parse_example(
            serialized, {split.fields.image: image, split.fields.label: label}
        )
        return parsed[split.fields.image], tf.cast(parsed[split.fields.label], tf.int32)

    files = [
        tf.data.TFRecordDataset(path, buffer_size=1 << 20).skip(first).take(stop - first)
        for path, first, stop in split.ranges
    ]
    decode = without_autograph(
        lambda serialized: tuple(tf.nest.flatten(decode_batch(source, stored(serialized))))
    )
    dataset = (
        functools.reduce(tf.data.Dataset.concatenate, files)
        .batch(_BATCH)
        .map(decode, num_parallel_calls=usable_cores(), deterministic=True)
        .with_options(options_without_autotune())
    )
    for leaves in dataset.as_numpy_iterator():
        yield tf.nest.pack_sequence_as(source.decoded, leaves)


def _first_undecodable(
    source: Source, reader: ExampleReader, first: int, examples: int, error: tf.errors.OpError
) -> tuple[int, tf.errors.OpError]:
    """Returns the index and error of the first example from `first` that cannot be decoded.

    If there is none, returns (`first`, `error`). `examples` is the number of examples in the split.
    """
    for index in range(first, examples):
        try:
            stored = reader.read(np.array([index]))
            assert source.decode is not None
            source.decode(tf.nest.map_structure(lambda leaf: leaf[0], constants(stored)))
        except tf.errors.OpError as example_error:
            return index, example_error
    return first, error
