"""Random access to the examples of TFRecord files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from pipelines.file import RandomAccessFile
from pipelines.index import Fields, load_or_build_index

_OPEN = 200  # maximum number of open files; the operating system limits them per process


class RecordReader:
    """Reads the examples of a split by index.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.
      fields: names of the features to read; None: whole serialized examples.
      cache_dir: directory where the record index is cached; None: it is not cached.
      progress: called with the number of examples indexed since the last call.

    Raises:
      ValueError: when a file is damaged, or has fewer records than its range.
      OSError, or without `cache_dir` ValueError: when a file cannot be read.
    """

    def __init__(
        self,
        ranges: Sequence[tuple[str, int, int]],
        fields: Fields | None = None,
        cache_dir: str | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._index = load_or_build_index(ranges, fields, cache_dir, progress)
        self._paths = [path for path, _, _ in ranges]
        self._ends = np.cumsum([stop - first for _, first, stop in ranges], dtype=np.int64)
        self._file = functools.lru_cache(_OPEN)(RandomAccessFile)

    def __len__(self) -> int:
        return len(self._index)

    def labels(self) -> np.ndarray:
        """Returns the labels of all examples, int32 [n]; all -1 if `fields` is None."""
        return self._index.rows(np.arange(len(self)))["label"].astype(np.int32)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads examples by index, int [k].

        Returns:
          Encoded images, or serialized examples if `fields` is None, object [k] of bytes; and
          labels, int32 [k], -1 if `fields` is None.
        """
        rows = self._index.rows(indices)
        files = np.searchsorted(self._ends, indices, side="right").tolist()
        starts, lengths = rows["start"].tolist(), rows["length"].tolist()
        stored = np.empty(len(indices), object)
        for i, (file, start, length) in enumerate(zip(files, starts, lengths, strict=True)):
            stored[i] = self._file(self._paths[file]).read(start, length)
        return stored, rows["label"].astype(np.int32)
