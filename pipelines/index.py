"""Where each example of a split lies: what lets any one be read without those before it.

A TFRecord file is a sequence of [length uint64][crc uint32][bytes][crc uint32]. One pass through
tf.data, which checks every CRC, tells where each example begins. Where images are stored encoded,
each example is looked into as well: then streaming reads an image's own bytes and has no example to
parse. The pass is made once for a data set and kept beside the decoded ones.

What is small lies in memory; of a large index a row is read as it is needed, so that memory does
not grow with the data set.
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
from pipelines.errors import damaged, reason
from pipelines.file import File
from pipelines.fingerprint import digest_of_ranges

_VERSION = 1
_FRAME = 16  # bytes around an example: its length and two CRCs
_HEADER = 12  # of them before it
_PORTION = 4096  # examples looked into at a time
_IN_MEMORY = 1 << 20  # rows
# Of an example: where in its file it begins, or its image, how many bytes, and which class.
_ROW = np.dtype([("start", "<i8"), ("length", "<i4"), ("label", "<i4")])


class Fields(NamedTuple):
    """Which features of an example are looked for.

    image: of one encoded image.
    label: of one integer.
    """

    image: str
    label: str


class Index:
    """Rows of all examples of a split.

    Args:
      rows: structured [n], in memory; or
      file: that holds them behind `skip` bytes.
      count: how many there are.
    """

    def __init__(
        self, rows: np.ndarray | None, count: int, file: File | None = None, skip: int = 0
    ) -> None:
        self._rows, self._count, self._file, self._skip = rows, count, file, skip

    def __len__(self) -> int:
        return self._count

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of some examples, structured [k]: start, length and label (-1 where not known)."""
        if self._rows is not None:
            return self._rows[numbers]
        assert self._file is not None
        read, skip, size = self._file.read, self._skip, _ROW.itemsize
        found = [read(skip + size * number, size) for number in numbers.tolist()]
        return np.frombuffer(b"".join(found), _ROW)


def index_of(
    ranges: Sequence[tuple[str, int, int]],
    fields: Fields | None,
    cache_dir: str | None,
    progress: Callable[[int], None] = lambda done: None,
) -> Index:
    """The index of a split.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.
      fields: what is looked for in each example; None: it is taken whole.
      cache_dir: where indices are kept between starts; None: nowhere.
      progress: told how many more examples were looked at, now and then.

    Raises:
      ValueError: when a file is missing, damaged or shorter than promised.
    """
    count = sum(stop - first for _, first, stop in ranges)
    if cache_dir is not None:
        recipe = f"index {_VERSION} {tuple(fields or ())}"
        path = os.path.join(cache_dir, f"{digest_of_ranges(ranges, recipe)}.index")
        found = _load(path, count)
        if found is None and _store(path, _made(ranges, fields, progress)):
            found = _load(path, count)
        if found is not None:
            return found
    # A cache may make a start faster, and may be missing.
    rows = np.concatenate([np.zeros(0, _ROW), *_made(ranges, fields, progress)])
    return Index(rows, count)


def _made(
    ranges: Sequence[tuple[str, int, int]],
    fields: Fields | None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[np.ndarray]:
    """Rows, a portion after the other."""
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
                f"{path} holds {seen} examples and {stop} were promised: the data set is damaged; "
                "delete its folder and prepare it again"
            )


def _examples(path: str) -> Iterator[np.ndarray]:
    """Serialized examples of a file, object [k] of bytes, a portion after the other."""
    dataset = tf.data.TFRecordDataset(path, buffer_size=1 << 20).batch(_PORTION)
    try:
        yield from dataset.as_numpy_iterator()
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise ValueError(damaged(path, reason(error))) from None
    except tf.errors.OpError as error:
        raise ValueError(f"cannot read {path}: {reason(error)}") from None


def _looked_into(example: bytes, start: int, fields: Fields, where: str) -> tuple[int, int, int]:
    """The row of an example: where its image is, and its label."""
    try:
        features = tf.train.Example.FromString(example).features.feature
        (image,) = features[fields.image].bytes_list.value
        (label,) = features[fields.label].int64_list.value
    except Exception as error:  # the protocol buffer library's error class is not public
        what = f"it has no {fields.image!r} and {fields.label!r} of one value each"
        why = what if isinstance(error, ValueError) else "it is no example"
        raise ValueError(damaged(where, why)) from None
    return start + example.index(image), len(image), label


def _load(path: str, count: int) -> Index | None:
    """An index that was kept, when it is sound."""
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
                return Index(None, count, File(path), skip)
            file.seek(skip)
            return Index(np.fromfile(file, _ROW), count)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(path: str, portions: Iterator[np.ndarray]) -> bool:
    """Keeps an index, whole or not at all; whether it was kept."""
    found = hashlib.sha256()

    def header() -> bytes:
        return json.dumps({"sha256": found.hexdigest()}).encode() + b"\n"

    try:
        with cache.written(path) as file:
            file.write(header())  # of as many bytes as the one that takes its place
            for rows in portions:
                content = rows.tobytes()
                file.write(content)
                found.update(content)
            file.seek(0)
            file.write(header())
    except OSError:
        return False
    return True
