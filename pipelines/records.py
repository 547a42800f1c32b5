"""TFRecord files -> any example by its number, without reading those before it.

Both feeds so see the same examples in the same order, and a resume costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from pipelines.file import File
from pipelines.index import Fields, index_of

_OPEN = 200  # files at a time: a process may have only so many open


class RecordReader:
    """Examples of a split by number.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.
      fields: what is read of each; None: all of it.
      cache_dir: where the index is kept between starts; None: nowhere.
      progress: told how many more examples are in the index, now and then.

    Raises:
      ValueError: when a file is missing, damaged or shorter than promised.
    """

    def __init__(
        self,
        ranges: Sequence[tuple[str, int, int]],
        fields: Fields | None = None,
        cache_dir: str | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._index = index_of(ranges, fields, cache_dir, progress)
        self._paths = [path for path, _, _ in ranges]
        self._ends = np.cumsum([stop - first for _, first, stop in ranges], dtype=np.int64)
        self._file = functools.lru_cache(_OPEN)(File)

    def __len__(self) -> int:
        return len(self._index)

    def labels(self) -> np.ndarray:
        """The labels of all examples, int32 [n]; -1 where no fields were asked for."""
        return self._index.rows(np.arange(len(self)))["label"].astype(np.int32)

    def read(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is stored of some examples.

        Args:
          numbers: int [k], each in 0 .. len-1.

        Returns:
          object [k] of bytes: encoded images, or whole serialized examples; and labels int32 [k],
          -1 for those.
        """
        rows = self._index.rows(numbers)
        files = np.searchsorted(self._ends, numbers, side="right").tolist()
        starts, lengths = rows["start"].tolist(), rows["length"].tolist()
        found = np.empty(len(numbers), object)
        for i, (file, start, length) in enumerate(zip(files, starts, lengths, strict=True)):
            found[i] = self._file(self._paths[file]).read(start, length)
        return found, rows["label"].astype(np.int32)
