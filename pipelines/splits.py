"""Interfaces of splits and of tables, which splits select rows from; tables of arrays in memory.

The feeds, the cache and the data's digests use the interface of splits. Splits in TFRecord files
are in `pipelines.storage.records`, and splits of tf.data pipelines in `pipelines.sequential`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.nests import Nest, Spec
from pipelines.rows import Rows


def no_progress(done: int) -> None:
    """Does nothing: the default progress callback, which ignores the number of examples done."""


class ExampleReader(Protocol):
    """Interface of an object that reads the stored examples of a split by index."""

    @property
    def spec(self) -> Spec:
        """Spec of one stored example; strings, such as encoded images, are allowed."""

    def read(self, indices: np.ndarray) -> Nest:
        """Returns stored examples by index, int [k], in the given order: a nest of arrays [k, ...].

        Raises:
          ValueError: when an example is damaged, cannot be read or does not have the spec; the
            message names the example.
          OSError: when a file cannot be read.
        """

    def targets(self) -> Nest | None:
        """Returns all targets, a nest of [n, ...]; None if examples must be read for them."""

    def location(self, index: int) -> str:
        """Returns the place of an example for messages, such as "example 7" or its file."""


class DataSplit(Protocol):
    """Interface of a split: examples of a data set, in a fixed order."""

    @property
    def name(self) -> str:
        """Name for messages, such as "train[:48000]"."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int, name: str) -> DataSplit:
        """Returns examples `start` to `stop` (exclusive) as a split; 0 <= start <= stop <= len."""

    def reader(
        self,
        cache_dir: str | None = None,
        progress: Callable[[int], None] = no_progress,
        only: np.ndarray | None = None,
    ) -> ExampleReader:
        """Returns a reader; an index that it must build is cached in `cache_dir`, if not None.

        `progress` is called with the number of examples indexed since the last call. `only` has the
        indices of the examples that will be read, int [k], if the reader need not read others.

        Raises:
          ValueError: when a file is damaged, or cannot be read to build an index in memory.
          OSError: when a file cannot be read.
        """

    def digest(self, all_bytes: bool = False) -> str:
        """Returns a digest of the stored examples and their order, in hexadecimal.

        Without `all_bytes`, samples of large data sets are hashed instead of all of their bytes.

        Raises:
          ValueError, OSError: as `ExampleReader.read`.
        """

    def in_common(self, other: DataSplit) -> int:
        """Returns the number of this split's examples that are also in `other`.

        Only the same stored examples count, not different ones of equal content.
        """

    def repeated(self) -> int:
        """Returns the number of repeats: occurrences of examples in the split after their first."""


_HASHED = 4096  # number of examples copied at a time to be hashed


class Table(Protocol):
    """Interface of the stored examples of a data set, from which indexed splits select rows."""

    @property
    def spec(self) -> Spec:
        """Spec of one stored example."""

    def read(self, rows: np.ndarray) -> Nest:
        """Returns stored examples by row, int [k]: a nest of arrays [k, ...].

        Raises:
          ValueError, OSError: as `ExampleReader.read`.
        """

    def targets(self, rows: np.ndarray | Rows) -> Nest | None:
        """Returns targets by row, int [k]: a nest of [k, ...]; None if examples must be read."""

    def location(self, row: int) -> str:
        """Returns the place of an example for messages, such as "example 7" or its file."""

    def digest(self, rows: np.ndarray | Rows, all_bytes: bool) -> str:
        """Returns a digest of the examples at `rows`, int [k]; see `DataSplit.digest`."""


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedSplit:
    """A split of a table's examples, given by their rows."""

    name: str
    table: Table
    rows: np.ndarray | Rows  # int64 [n], of the examples in the split

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int, name: str) -> IndexedSplit:
        """Returns examples `start` to `stop` (exclusive) as a split."""
        return IndexedSplit(name, self.table, self.rows[start:stop])

    def reader(
        self,
        cache_dir: str | None = None,
        progress: Callable[[int], None] = no_progress,
        only: np.ndarray | None = None,
    ) -> IndexedReader:
        """Returns a reader of the split's examples; the arguments are ignored."""
        return IndexedReader(self)

    def digest(self, all_bytes: bool = False) -> str:
        """Returns the table's digest of the rows; see `DataSplit.digest`."""
        return self.table.digest(self.rows, all_bytes)

    def in_common(self, other: DataSplit) -> int:
        """Returns the number of rows that `other` has too; 0 for a split of another table."""
        if not isinstance(other, IndexedSplit) or other.table is not self.table:
            return 0
        if isinstance(self.rows, Rows) and isinstance(other.rows, Rows):
            count = self.rows.in_common(other.rows)
            if count is not None:
                return count
        return int(np.isin(np.asarray(self.rows), np.asarray(other.rows)).sum())

    def repeated(self) -> int:
        """Returns the number of repeats: occurrences of examples in the split after their first."""
        if isinstance(self.rows, Rows):
            return 0
        return len(self.rows) - len(np.unique(self.rows))


@dataclasses.dataclass(frozen=True)
class IndexedReader:
    """Reader of the examples of an `IndexedSplit` by index."""

    split: IndexedSplit

    @property
    def spec(self) -> Spec:
        """Spec of one stored example."""
        return self.split.table.spec

    def read(self, indices: np.ndarray) -> Nest:
        """Returns stored examples by index, int [k]: a nest of arrays [k, ...].

        Raises:
          ValueError, OSError: as `ExampleReader.read`.
        """
        return self.split.table.read(self.split.rows[indices])

    def targets(self) -> Nest | None:
        """Returns all targets, a nest of [n, ...]; None if examples must be read for them."""
        return self.split.table.targets(self.split.rows)

    def location(self, index: int) -> str:
        """Returns the place of an example for messages, such as "example 7" or its file."""
        return self.split.table.location(int(self.split.rows[index]))


class ArrayTable:
    """Table of examples in memory, stored decoded: a nest (inputs, targets) of arrays [n, ...]."""

    def __init__(self, arrays: tuple[Nest, Nest]) -> None:
        self.arrays, self.spec = arrays, nests.spec_of(arrays)

    def read(self, rows: np.ndarray) -> Nest:
        """Returns (inputs, targets) by row: nests of arrays [k, ...]."""
        return tf.nest.map_structure(lambda array: array[rows], self.arrays)

    def targets(self, rows: np.ndarray | Rows) -> Nest:
        """Returns the targets by row: a nest of arrays [k, ...]."""
        rows = np.asarray(rows)
        return tf.nest.map_structure(lambda array: array[rows], self.arrays[1])

    def location(self, row: int) -> str:
        """Returns "example" and the row, for messages."""
        return f"example {row}"

    def digest(self, rows: np.ndarray | Rows, all_bytes: bool) -> str:
        """Returns a digest of the values, dtypes and shapes of rows; ignores `all_bytes`."""
        digest = hashlib.sha256(nests.signature(self.spec).encode())
        for leaf in tf.nest.flatten(self.arrays):
            for start in range(0, len(rows), _HASHED):
                values = leaf[np.asarray(rows[start : start + _HASHED])]
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:32]


def whole(name: str, table: Table, examples: int, shuffle: bool = False) -> IndexedSplit:
    """Returns all examples of a table as a split; with `shuffle`, in a fixed random order."""
    return IndexedSplit(name, table, Rows(examples, shuffle))
