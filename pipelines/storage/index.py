"""The record index of a split: offset and length of each example in its file, for random access.

It is put together from the rows of each file, see `pipelines.storage.file_index`. Files that are
links to one file are indexed once, and share their rows.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.storage import cache, file_index
from pipelines.storage.file import RandomAccessFile
from pipelines.storage.file_index import ROW, Fields, Range, last
from pipelines.storage.fingerprint import FileDigests, hashes_all_bytes, representatives

_IN_MEMORY = 1 << 20  # number of rows of the largest index that is held in memory


class RecordIndex:
    """The record index of a split: offset and length in bytes, and label or -1, of each example.

    With `Fields`, offset and length are those of the example's encoded image. The records of a file
    that is in several ranges, or is linked to, have one row each.

    Args:
      rows: structured array [m] of `ROW`; or, for a large index, a file that contains only it.
      begins: index in `rows` of the first row of each range, int [ranges]; -1 if it has none.
      counts: number of examples of each range, int [ranges].
    """

    def __init__(
        self, rows: np.ndarray | RandomAccessFile, begins: np.ndarray, counts: np.ndarray
    ) -> None:
        self._rows, self._begins, self._counts = rows, begins, counts
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def ranges(self, indices: np.ndarray) -> np.ndarray:
        """Returns the number of the range of examples by index, int [k]: int64 [k]."""
        return np.searchsorted(self._ends, indices, side="right")

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Returns the rows (start, length, label) of examples by index, int [k]: structured [k]."""
        ranges = self.ranges(indices)
        assert not len(ranges) or self._begins[ranges].min() >= 0  # see `only` of the builder
        places = indices - (self._ends - self._counts)[ranges] + self._begins[ranges]
        if isinstance(self._rows, np.ndarray):
            return self._rows[places]
        read, size = self._rows.read, ROW.itemsize
        return np.frombuffer(b"".join([read(size * place, size) for place in places.tolist()]), ROW)

    def labels(self) -> np.ndarray:
        """Returns the labels of all examples, int32 [n]."""
        found = np.empty(len(self), np.int32)
        for begin, count, end in zip(self._begins, self._counts, self._ends, strict=True):
            found[end - count : end] = self._slice(int(begin), int(count))["label"]
        return found

    def _slice(self, begin: int, count: int) -> np.ndarray:
        if isinstance(self._rows, np.ndarray):
            return self._rows[begin : begin + count]
        size = ROW.itemsize
        return np.frombuffer(self._rows.read(size * begin, size * count), ROW)


def load_or_build_index(
    ranges: Sequence[Range],
    fields: Fields | None,
    cache_dir: str | None,
    progress: Callable[[int], None] = lambda done: None,
    only: np.ndarray | None = None,
) -> RecordIndex:
    """Returns the index of a split from the cache; builds what is missing and writes it there.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.
      fields: names of the features to index; None: whole serialized examples.
      cache_dir: directory where the index is cached; None: it is not cached.
      progress: called with the number of examples of files that were read since the last call.
      only: indices of examples, int [k]: the index has only the files of these; None: all files.

    Raises:
      ValueError: when a file is damaged, or has fewer records than its range.
      OSError, or without `cache_dir` ValueError: when a file cannot be read.
    """
    counts = np.array([stop - first for _, first, stop in ranges], np.int64)
    wanted = np.flatnonzero(counts).tolist()
    if only is not None:
        wanted = np.unique(np.searchsorted(np.cumsum(counts), only, side="right")).tolist()
    files: dict[str, list[Range]] = {}  # the ranges of each file, by one of its paths
    paths = representatives([path for path, _, _ in ranges])
    for number in wanted:
        files.setdefault(paths[number], []).append(ranges[number])
    firsts, built = {}, False
    most = sum(last(of_file) for of_file in files.values())
    with contextlib.closing(_Rows(most, cache_dir)) as rows, FileDigests(cache_dir) as digests:
        all_bytes = cache_dir is not None and hashes_all_bytes([path for path, _, _ in ranges])
        for path, of_file in files.items():
            firsts[path], bytes_before, entry = rows.count, digests.bytes_read, ""
            if cache_dir is not None:
                digest = digests.digest(path, all_bytes)
                entry = file_index.entry_path(cache_dir, digest, fields)
            found = file_index.load(entry)
            if len(found) < last(of_file):
                found = file_index.build(path, of_file, fields, entry, found, progress)
                built = True
            elif digests.bytes_read > bytes_before:
                progress(sum(stop - first for _, first, stop in of_file))
            file_index.refuse_faults(path, of_file, fields, found)
            rows.add(found[: last(of_file)])
        all_rows = rows.finished()
    if built and cache_dir is not None:
        with contextlib.suppress(OSError):
            cache.prune(cache_dir)
    begins = np.full(len(ranges), -1, np.int64)
    for number in wanted:
        begins[number] = firsts[paths[number]] + ranges[number][1]
    return RecordIndex(all_rows, begins, counts)


class _Rows:
    """Rows of one file after the other: in memory, or above a million rows in a temporary file.

    The temporary file is in the cache directory and has no name: it takes neither memory, nor an
    open file for each file of the data set, and it ends with the process.

    Args:
      rows: the largest number of rows that are added.
      cache_dir: directory of the temporary file; None: the rows are in memory.
    """

    def __init__(self, rows: int, cache_dir: str | None) -> None:
        self.count = 0
        self._parts: list[np.ndarray] = []
        self._file: Any = None
        if rows > _IN_MEMORY and cache_dir is not None:
            with contextlib.suppress(OSError):  # the disk is full, or read-only: memory has to do
                os.makedirs(cache_dir, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=cache_dir)  # noqa: SIM115
                try:
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(self._file.fileno(), 0, rows * ROW.itemsize)
                except OSError:
                    self.close()

    def add(self, rows: np.ndarray) -> None:
        """Adds the rows of a file, structured [m]."""
        self.count += len(rows)
        if self._file is None:
            self._parts.append(rows)
        else:
            self._file.write(rows.tobytes())

    def finished(self) -> np.ndarray | RandomAccessFile:
        """Returns all rows, as for `RecordIndex`."""
        if self._file is None:
            return np.concatenate([np.zeros(0, ROW), *self._parts])
        self._file.flush()
        return RandomAccessFile(os.dup(self._file.fileno()))

    def close(self) -> None:
        """Closes the temporary file, if there is one, but not the one that `finished` returned."""
        if self._file is not None:
            self._file.close()
        self._file = None
