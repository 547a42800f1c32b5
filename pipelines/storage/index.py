"""The record index of a split: offset and length of each example in its file, for random access.

A TFRecord file is a sequence of [length uint64][crc uint32][bytes][crc uint32]. One pass through
tf.data, which checks every CRC, builds the index. If images are stored encoded, the index locates
the images and has the labels, so that the streaming feed reads only images and parses no example.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines.errors import damaged_data_message, reason
from pipelines.storage import cache
from pipelines.storage.file import RandomAccessFile
from pipelines.storage.fingerprint import examples_digest

_VERSION = 1
_FRAME = 16  # bytes of the frame around an example: its length and two CRCs
_HEADER = 12  # bytes of the frame before the example
_CHUNK = 4096  # examples indexed at a time
_IN_MEMORY = 1 << 20  # number of rows of the largest index that is held in memory
# Offset in its file and length of an example or of its image, both in bytes; label, or -1.
_ROW = np.dtype([("start", "<i8"), ("length", "<i4"), ("label", "<i4")])


class Fields(NamedTuple):
    """Names of two features of a `tf.train.Example`: an image to locate, and a label to store."""

    image: str  # of a bytes feature, one encoded image
    label: str  # of an int64 feature, one class label


class RecordIndex:
    """The record index of a split: offset and length in bytes, and label or -1, of each example.

    With `Fields`, offset and length are those of the example's encoded image.

    Args:
      rows: structured array [n] of `_ROW`; or, for a large index, the file that contains it.
      count: number of rows, n.
      offset: offset of the first row in that file, in bytes.
    """

    def __init__(self, rows: np.ndarray | RandomAccessFile, count: int, offset: int = 0) -> None:
        self._rows, self._count, self._offset = rows, count, offset

    def __len__(self) -> int:
        return self._count

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Returns the rows (start, length, label) of examples by index, int [k]: structured [k]."""
        if isinstance(self._rows, np.ndarray):
            return self._rows[indices]
        read, size = self._rows.read, _ROW.itemsize
        rows = [read(self._offset + size * index, size) for index in indices.tolist()]
        return np.frombuffer(b"".join(rows), _ROW)


def load_or_build_index(
    ranges: Sequence[tuple[str, int, int]],
    fields: Fields | None,
    cache_dir: str | None,
    progress: Callable[[int], None] = lambda done: None,
) -> RecordIndex:
    """Returns the index of a split from the cache, or builds it and writes it to the cache.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.
      fields: names of the features to index; None: whole serialized examples.
      cache_dir: directory where the index is cached; None: it is not cached.
      progress: called with the number of examples indexed since the last call.

    Raises:
      ValueError: when a file is damaged, or has fewer records than its range.
      OSError, or without `cache_dir` ValueError: when a file cannot be read.
    """
    count = sum(stop - first for _, first, stop in ranges)
    if cache_dir is not None:
        recipe = f"index {_VERSION} {tuple(fields or ())}"
        path = os.path.join(cache_dir, f"{examples_digest(ranges, recipe)}.index")
        index = _load(path, count)
        if index is None and _store(path, _build(ranges, fields, progress)):
            index = _load(path, count)
        if index is not None:
            return index
    # Without a cache, or if it cannot be written, the index is built in memory.
    rows = np.concatenate([np.zeros(0, _ROW), *_build(ranges, fields, progress)])
    return RecordIndex(rows, count)


def _build(
    ranges: Sequence[tuple[str, int, int]],
    fields: Fields | None,
    progress: Callable[[int], None],
) -> Iterator[np.ndarray]:
    """Yields the index rows of a split in chunks, structured [k].

    Raises:
      ValueError: when a file is damaged, cannot be read, or has fewer records than its range.
    """
    for path, first, stop in ranges:
        seen, end = 0, 0
        for examples in _examples(path):
            lengths = np.fromiter(map(len, examples), np.int64, len(examples))
            ends = end + np.cumsum(lengths + _FRAME)
            starts, end = ends - lengths - _FRAME + _HEADER, int(ends[-1])
            rows = np.empty(len(examples), _ROW)
            rows["start"], rows["length"], rows["label"] = starts, lengths, -1
            in_range = slice(max(first - seen, 0), max(stop - seen, 0))
            if fields is not None:
                parsed = [
                    _parse(examples[i], start, fields, f"{path}, example {seen + i}")
                    for i, start in enumerate(starts[in_range].tolist(), in_range.start)
                ]
                rows[in_range] = np.array(parsed, _ROW)
            seen += len(examples)
            if len(rows[in_range]):
                yield rows[in_range]
                progress(len(rows[in_range]))
            if seen >= stop:
                break
        if seen < stop:
            raise ValueError(
                f"{path} contains {seen} examples; expected {stop}: the data set is damaged; "
                "delete its folder and prepare it again"
            )


def _examples(path: str) -> Iterator[np.ndarray]:
    """Yields a TFRecord file's examples in chunks, object [k] of bytes.

    Raises:
      ValueError: when the file is damaged or cannot be read.
    """
    dataset = tf.data.TFRecordDataset(path, buffer_size=1 << 20).batch(_CHUNK)
    try:
        yield from dataset.as_numpy_iterator()
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise ValueError(damaged_data_message(path, reason(error))) from None
    except tf.errors.OpError as error:
        raise ValueError(f"cannot read {path}: {reason(error)}") from None


def _parse(example: bytes, start: int, fields: Fields, where: str) -> tuple[int, int, int]:
    """Returns (offset of the image in the file, its length, label) of a serialized example.

    `start` is the offset of the example in the file, in bytes.

    Raises:
      ValueError: when the example is invalid, or a feature does not have one value; the message
        contains `where`.
    """
    try:
        features = tf.train.Example.FromString(example).features.feature
        (image,) = features[fields.image].bytes_list.value
        (label,) = features[fields.label].int64_list.value
    except Exception as error:  # the protocol buffer library's error class is not public
        what = f"it has no {fields.image!r} and {fields.label!r} of one value each"
        why = what if isinstance(error, ValueError) else "it is not a valid tf.train.Example"
        raise ValueError(damaged_data_message(where, why)) from None
    return start + example.index(image), len(image), label


def _load(path: str, count: int) -> RecordIndex | None:
    """Returns the cached index in `path`; None if missing, damaged or not of `count` rows."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline())
            offset, digest = file.tell(), hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            size = file.tell() - offset
            if size != count * _ROW.itemsize or header["sha256"] != digest.hexdigest():
                return None
            cache.used(path)
            if count > _IN_MEMORY:
                return RecordIndex(RandomAccessFile(path), count, offset)
            file.seek(offset)
            return RecordIndex(np.fromfile(file, _ROW), count)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(path: str, chunks: Iterator[np.ndarray]) -> bool:
    """Writes chunks of index rows to the cache atomically; returns False for an OSError, else True.

    Raises:
      ValueError: as `_build`, which yields the chunks.
    """
    digest = hashlib.sha256()

    def header() -> bytes:
        return json.dumps({"sha256": digest.hexdigest()}).encode() + b"\n"

    try:
        with cache.written(path) as file:
            file.write(header())  # placeholder of the same length as the final header
            for rows in chunks:
                content = rows.tobytes()
                file.write(content)
                digest.update(content)
            file.seek(0)
            file.write(header())
    except OSError:
        return False
    return True
