"""Splits in TFRecord files, and random access to their examples."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.host import open_files_per_reader
from pipelines.splits import DataSplit, no_progress
from pipelines.storage.file import RandomAccessFile
from pipelines.storage.file_index import Fields
from pipelines.storage.fingerprint import examples_digest, representatives
from pipelines.storage.index import load_or_build_index

_OPEN = 200  # most open files of a reader; more save nothing that reading would notice


@dataclasses.dataclass(frozen=True)
class RecordSplit:
    """The examples of a split, in file order, as ranges of TFRecord files.

    A stored example is (encoded image, label) if there are `fields`, else a serialized
    `tf.train.Example`.
    """

    name: str  # used in messages, such as "train[:48000]"
    ranges: tuple[tuple[str, int, int], ...]  # (path, first record, past-the-last record)
    fields: Fields | None = None  # the features to read; None: whole examples
    # Directory where the digests of the files are kept between runs; None: they are not kept.
    cache_dir: str | None = dataclasses.field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return sum(last - first for _, first, last in self.ranges)

    def part(self, start: int, stop: int, name: str) -> RecordSplit:
        """Returns examples `start` to `stop` (exclusive) as a split; 0 <= start <= stop <= len."""
        ranges, offset = [], 0
        for path, first, last in self.ranges:
            begin = first + max(start - offset, 0)
            end = min(last, first + stop - offset)
            if begin < end:
                ranges.append((path, begin, end))
            offset += last - first
        return dataclasses.replace(self, name=name, ranges=tuple(ranges))

    def reader(
        self,
        cache_dir: str | None = None,
        progress: Callable[[int], None] = no_progress,
        only: np.ndarray | None = None,
    ) -> RecordReader:
        """Returns a reader, whose index is cached in `cache_dir`; see `RecordReader`."""
        return RecordReader(self.ranges, self.fields, cache_dir, progress, only)

    def digest(self, all_bytes: bool = False) -> str:
        """Returns a digest of the records' files and ranges, see `examples_digest`."""
        return examples_digest(self.ranges, "", all_bytes, self.cache_dir)

    def in_common(self, other: DataSplit) -> int:
        """Returns the number of distinct records of the split that `other` has too.

        Returns 0 if `other` is not a `RecordSplit`.
        """
        if not isinstance(other, RecordSplit):
            return 0
        return _covered([*_merged(self.ranges), *_merged(other.ranges)], at_least=2)

    def repeated(self) -> int:
        """Returns the number of repeats: occurrences of examples in the split after their first."""
        return len(self) - _covered(self.ranges, at_least=1)


def _covered(ranges: Sequence[tuple[str, int, int]], at_least: int) -> int:
    """Returns the number of records that are in at least `at_least` of the ranges."""
    ends = sorted(
        (path, at, change)
        for path, first, last in ranges
        for at, change in ((first, 1), (last, -1))
    )
    total, depth = 0, 0
    for (path, at, change), (next_path, next_at, _) in itertools.pairwise(ends):
        depth += change
        if path == next_path and depth >= at_least:
            total += next_at - at
    return total


def _merged(ranges: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Returns the union of ranges, as ranges that share no record."""
    merged: list[tuple[str, int, int]] = []
    for path, first, last in sorted(ranges):
        if merged and merged[-1][0] == path and first <= merged[-1][2]:
            merged[-1] = (path, merged[-1][1], max(last, merged[-1][2]))
        else:
            merged.append((path, first, last))
    return merged


class RecordReader:
    """Reader of the examples of a split of TFRecord files by index.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.
      fields: names of the features to read; None: whole serialized examples.
      cache_dir: directory where the record index is cached; None: it is not cached.
      progress: called with the number of examples of files that were read since the last call.
      only: indices of the examples that will be read, int [k]: other files are not indexed, and
        other examples cannot be read; None: all.

    Raises:
      ValueError: when a file is damaged, or has fewer records than its range.
      OSError, or without `cache_dir` ValueError: when a file cannot be read.
    """

    def __init__(
        self,
        ranges: Sequence[tuple[str, int, int]],
        fields: Fields | None = None,
        cache_dir: str | None = None,
        progress: Callable[[int], None] = no_progress,
        only: np.ndarray | None = None,
    ) -> None:
        self._fields = fields
        self._index = load_or_build_index(ranges, fields, cache_dir, progress, only)
        # Links to one file share an open file.
        self._paths = representatives([path for path, _, _ in ranges])
        self._file = functools.lru_cache(open_files_per_reader(_OPEN))(RandomAccessFile)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def spec(self) -> Any:
        """Spec of a stored example, see `RecordSplit`."""
        encoded = tf.TensorSpec([], tf.string)
        return (encoded, tf.TensorSpec([], tf.int32)) if self._fields else encoded

    def targets(self) -> np.ndarray | None:
        """Returns the labels of all examples, int32 [n]; None without `fields`."""
        if self._fields is None:
            return None
        return self._index.labels()

    def location(self, index: int) -> str:
        """Returns the index of an example in the split, for messages."""
        return f"example {index}"

    def read(self, indices: np.ndarray) -> Any:
        """Reads examples by index, int [k].

        Returns:
          (encoded images, object [k] of bytes; labels, int32 [k]), or without `fields` serialized
          examples, object [k] of bytes.

        Raises:
          OSError: when a file cannot be read.
        """
        rows = self._index.rows(indices)
        files = self._index.ranges(indices).tolist()
        starts, lengths = rows["start"].tolist(), rows["length"].tolist()
        stored = np.empty(len(indices), object)
        for i, (file, start, length) in enumerate(zip(files, starts, lengths, strict=True)):
            stored[i] = self._file(self._paths[file]).read(start, length)
        return (stored, rows["label"].astype(np.int32)) if self._fields else stored
