"""Indexes a split: finds the position of each example in its file, for random access.

A TFRecord file is a sequence of [length uint64][crc uint32][bytes][crc uint32]. One pass through
tf.data, which checks every CRC, finds where each example begins. Where images are stored encoded,
the pass also finds the image in each example: the streaming feed then reads only the bytes of the
image and parses no example. The index is built once for each split and cached in the directory of
the decoded examples.

A small index is held in memory. The rows of a large one are read from disk when they are needed, so
memory does not grow with the data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines import cache
from pipelines.errors import damaged_data_message, reason
from pipelines.file import RandomAccessFile
from pipelines.fingerprint import examples_digest

_VERSION = 1
_FRAME = 16  # bytes of the frame around an example: its length and two CRCs
_HEADER = 12  # bytes of the frame before the example
_PORTION = 4096  # examples indexed at a time
_IN_MEMORY = 1 << 20  # number of rows of the largest index that is held in memory
# Row of an example: offset in its file and length of the example or of its image, both in bytes;
# and the label.
_ROW = np.dtype([("start", "<i8"), ("length", "<i4"), ("label", "<i4")])


class Fields(NamedTuple):
    """Names of the indexed features of an example.

    Attributes:
      image: name of the feature that holds one encoded image.
      label: name of the feature that holds one integer.
    """

    image: str
    label: str


class RecordIndex:
    """The index rows of all examples of a split, in memory or in a file.

    Args:
      rows: structured array [n] of start, length and label; None: the rows are in `file`.
      count: number of rows.
      file: file that contains the rows.
      skip: offset of the first row in the file, in bytes.
    """

    def __init__(
        self,
        rows: np.ndarray | None,
        count: int,
        file: RandomAccessFile | None = None,
        skip: int = 0,
    ) -> None:
        self._rows, self._count, self._file, self._skip = rows, count, file, skip

    def __len__(self) -> int:
        return self._count

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Returns rows by example index, structured [k]: start, length, label (-1: unknown)."""
        if self._rows is not None:
            return self._rows[numbers]
        assert self._file is not None
        read, skip, size = self._file.read, self._skip, _ROW.itemsize
        found = [read(skip + size * number, size) for number in numbers.tolist()]
        return np.frombuffer(b"".join(found), _ROW)


def load_or_build_index(
    ranges: Sequence[tuple[str, int, int]],
    fields: Fields | None,
    cache_dir: str | None,
    progress: Callable[[int], None] = lambda done: None,
) -> RecordIndex:
    """Returns the index of a split, from the cache if possible.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.
      fields: names of the features that are indexed in each example; None: whole examples are
        indexed.
      cache_dir: directory where the index is cached; None: it is not cached.
      progress: called periodically with the number of examples indexed since the last call.

    Raises:
      ValueError: when a file is missing or damaged, or has fewer records than `ranges`.
    """
    count = sum(stop - first for _, first, stop in ranges)
    if cache_dir is not None:
        recipe = f"index {_VERSION} {tuple(fields or ())}"
        path = os.path.join(cache_dir, f"{examples_digest(ranges, recipe)}.index")
        found = _load(path, count)
        if found is None and _store(path, _made(ranges, fields, progress)):
            found = _load(path, count)
        if found is not None:
            return found
    # Without a cache, or if it cannot be written, the index is built in memory.
    rows = np.concatenate([np.zeros(0, _ROW), *_made(ranges, fields, progress)])
    return RecordIndex(rows, count)


def _made(
    ranges: Sequence[tuple[str, int, int]],
    fields: Fields | None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[np.ndarray]:
    """Yields the index rows of a split in chunks, structured [k]."""
    for path, first, stop in ranges:
        seen, end = 0, 0
        for examples in _examples(path):
            lengths = np.fromiter(map(len, examples), np.int64, len(examples))
            ends = end + np.cumsum(lengths + _FRAME)
            starts, end = ends - lengths - _FRAME + _HEADER, int(ends[-1])
            rows = np.empty(len(examples), _ROW)
            rows["start"], rows["length"], rows["label"] = starts, lengths, -1
            wanted = slice(max(first - seen, 0), max(stop - seen, 0))
            if fields is not None:
                looked_into = [
                    _looked_into(examples[at], begin, fields, f"{path}, example {seen + at}")
                    for at, begin in enumerate(starts[wanted].tolist(), wanted.start)
                ]
                rows[wanted] = np.array(looked_into, _ROW)
            seen += len(examples)
            if len(rows[wanted]):
                yield rows[wanted]
                progress(len(rows[wanted]))
            if seen >= stop:
                break
        if seen < stop:
            raise ValueError(
                f"{path} contains {seen} examples; expected {stop}: the data set is damaged; "
                "delete its folder and prepare it again"
            )


def _examples(path: str) -> Iterator[np.ndarray]:
    """Yields the serialized examples of a file in chunks, object [k] of bytes."""
    dataset = tf.data.TFRecordDataset(path, buffer_size=1 << 20).batch(_PORTION)
    try:
        yield from dataset.as_numpy_iterator()
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise ValueError(damaged_data_message(path, reason(error))) from None
    except tf.errors.OpError as error:
        raise ValueError(f"cannot read {path}: {reason(error)}") from None


def _looked_into(example: bytes, start: int, fields: Fields, where: str) -> tuple[int, int, int]:
    """Returns the index row of an example: offset and length of its image, and its label."""
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
    """Loads an index from the cache; returns None if it is missing or invalid."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline())
            skip, found = file.tell(), hashlib.sha256()
            while block := file.read(1 << 20):
                found.update(block)
            if file.tell() != skip + count * _ROW.itemsize or header["sha256"] != found.hexdigest():
                return None
            cache.used(path)
            if count > _IN_MEMORY:
                return RecordIndex(None, count, RandomAccessFile(path), skip)
            file.seek(skip)
            return RecordIndex(np.fromfile(file, _ROW), count)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(path: str, portions: Iterator[np.ndarray]) -> bool:
    """Writes an index to the cache atomically; returns False if it cannot be written."""
    found = hashlib.sha256()

    def header() -> bytes:
        return json.dumps({"sha256": found.hexdigest()}).encode() + b"\n"

    try:
        with cache.written(path) as file:
            file.write(header())  # placeholder of the same length as the final header
            for rows in portions:
                content = rows.tobytes()
                file.write(content)
                found.update(content)
            file.seek(0)
            file.write(header())
    except OSError:
        return False
    return True
