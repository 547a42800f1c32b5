"""The index rows of one TFRecord file: building them, and their entry in the cache.

A TFRecord file is a sequence of [length uint64][crc uint32][bytes][crc uint32]. One pass through
tf.data, which checks every CRC, builds the rows. If images are stored encoded, a row locates the
image and has the label, so that the streaming feed reads only images and parses no example.

The cache entry is found by the digest of the file: a changed file is indexed again, and no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines.errors import damaged_data_message, reason
from pipelines.storage import cache

_VERSION = 2
_FRAME = 16  # bytes of the frame around an example: its length and two CRCs
_HEADER = 12  # bytes of the frame before the example
_CHUNK = 4096  # examples indexed at a time
# Offset in its file and length of an example or of its image, both in bytes; label, or -1. A
# negative length is one of `_FAULTS`.
ROW = np.dtype([("start", "<i8"), ("length", "<i4"), ("label", "<i4")])
_NO_EXAMPLE, _NO_FIELDS = -1, -2
_FAULTS = {
    _NO_EXAMPLE: "it is not a valid tf.train.Example",
    _NO_FIELDS: "it has no {!r} and {!r} of one value each",
}

Range = tuple[str, int, int]  # path, first record, past-the-last record


class Fields(NamedTuple):
    """Names of two features of a `tf.train.Example`: an image to locate, and a label to store."""

    image: str  # of a bytes feature, one encoded image
    label: str  # of an int64 feature, one class label


def last(ranges: Sequence[Range]) -> int:
    """Returns the end of the last of a file's ranges, in records."""
    return max(stop for _, _, stop in ranges)


def entry_path(cache_dir: str, digest: str, fields: Fields | None) -> str:
    """Returns the path of the cache entry for the file with a digest."""
    recipe = f"index {_VERSION} {tuple(fields or ())} {digest}"
    name = hashlib.sha256(recipe.encode()).hexdigest()[:32]
    return os.path.join(cache_dir, f"{name}.index")


def build(
    path: str,
    ranges: Sequence[Range],
    fields: Fields | None,
    entry: str,
    known: np.ndarray,
    progress: Callable[[int], None],
) -> np.ndarray:
    """Returns the index rows of a file, structured [m], up to the last record of its ranges.

    Args:
      path: path of the file.
      ranges: ranges of the file.
      fields: names of the features to index, as for `load_or_build_index`.
      entry: path of the cache entry to write; "": none. Then no example in front of the ranges is
        parsed.
      known: rows of the first records, structured [k], which are not parsed again.
      progress: as for `load_or_build_index`.

    Raises:
      ValueError: when the file is damaged, cannot be read, or has fewer records than its ranges.
    """
    parsed = len(known) if entry else min(first for _, first, _ in ranges)
    stop = last(ranges)
    total = sum(stop - first for _, first, stop in ranges)
    chunks = [np.zeros(0, ROW)]
    seen, end, told = 0, 0, 0
    for examples in _examples(path, stop):
        lengths = np.fromiter(map(len, examples), np.int64, len(examples))
        ends = end + np.cumsum(lengths + _FRAME)
        starts, end = ends - lengths - _FRAME + _HEADER, int(ends[-1])
        rows = np.empty(len(examples), ROW)
        rows["start"], rows["length"], rows["label"] = starts, lengths, -1
        if fields is not None:
            some = slice(max(parsed - seen, 0), None)
            located = zip(examples[some], starts[some].tolist(), strict=True)
            rows[some] = np.array([_located(*each, fields) for each in located], ROW)
        chunks.append(rows)
        seen += len(examples)
        progress(total * seen // stop - told)
        told = total * seen // stop
    if seen < stop:
        raise ValueError(
            f"{path} contains {seen} examples; expected {stop}: the data set is damaged; "
            "delete its folder and prepare it again"
        )
    rows = np.concatenate(chunks)
    rows[: len(known)] = known
    if entry:
        _store(entry, rows)
    return rows


def _examples(path: str, stop: int) -> Iterator[np.ndarray]:
    """Yields the first `stop` examples of a TFRecord file in chunks, object [k] of bytes.

    Raises:
      ValueError: when the file is damaged or cannot be read.
    """
    dataset = tf.data.TFRecordDataset(path, buffer_size=1 << 20).take(stop).batch(_CHUNK)
    try:
        yield from dataset.as_numpy_iterator()
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise ValueError(damaged_data_message(path, reason(error))) from None
    except tf.errors.OpError as error:
        raise ValueError(f"cannot read {path}: {reason(error)}") from None


def _located(example: bytes, start: int, fields: Fields) -> tuple[int, int, int]:
    """Returns (offset of the image in the file, its length, label) of a serialized example.

    `start` is the offset of the example in the file, in bytes. The length is one of `_FAULTS` if
    the example is invalid, or a feature does not have one value.
    """
    try:
        features = tf.train.Example.FromString(example).features.feature
        (image,) = features[fields.image].bytes_list.value
        (label,) = features[fields.label].int64_list.value
    except Exception as error:  # the protocol buffer library's error class is not public
        return start, _NO_FIELDS if isinstance(error, ValueError) else _NO_EXAMPLE, -1
    return start + example.index(image), len(image), label


def refuse_faults(
    path: str, ranges: Sequence[Range], fields: Fields | None, rows: np.ndarray
) -> None:
    """Raises ValueError if an example of a file's ranges could not be located in it.

    `rows` are those of the file from its first record on, structured [m].
    """
    for _, first, stop in ranges:
        lengths = rows["length"][first:stop]
        if len(faulty := np.flatnonzero(lengths < 0)):
            why = _FAULTS[int(lengths[faulty[0]])].format(*fields or ())
            raise ValueError(damaged_data_message(f"{path}, example {first + faulty[0]}", why))


def load(path: str) -> np.ndarray:
    """Returns the rows in a cache entry, structured [m]; none if it is missing or damaged."""
    try:
        with open(path, "rb") as file:
            digest = json.loads(file.readline())["sha256"]
            rows = np.frombuffer(file.read(), ROW)
        if hashlib.sha256(rows.data).hexdigest() == digest:
            cache.used(path)
            return rows
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return np.zeros(0, ROW)


def _store(path: str, rows: np.ndarray) -> None:
    """Writes the rows of a file to the cache atomically; ignores OSError."""
    content = rows.tobytes()
    header = json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode()
    with contextlib.suppress(OSError), cache.written(path, pruned=False) as file:
        file.write(header + b"\n" + content)
