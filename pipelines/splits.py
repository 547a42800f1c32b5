"""Splits: the examples of one part of a data set, of any storage, with random access.

The feeds, the cache and the identity of the data know only this interface. Records of TFRecord
files are in `pipelines.records`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.nests import Nest, Spec


def no_progress(done: int) -> None:
    """Ignores the number of examples that are done."""


class ExampleReader(Protocol):
    """Interface of an object that reads the stored examples of a split by index."""

    @property
    def spec(self) -> Spec:
        """Spec of one stored example; strings, such as encoded images, are allowed."""

    def read(self, indices: np.ndarray) -> Nest:
        """Returns stored examples by index, int [k], in the given order: arrays [k, ...].

        Raises:
          ValueError: when an example is damaged or does not have the spec; names the example.
          OSError: when a file cannot be read.
        """

    def targets(self) -> Nest | None:
        """Returns the decoded targets of all examples if no example must be decoded, else None."""


class DataSplit(Protocol):
    """Interface of the examples of one split, in a fixed order."""

    @property
    def name(self) -> str:
        """Name for messages, such as "train[:48000]"."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int, name: str) -> DataSplit:
        """Returns examples `start` to `stop` (exclusive) as a split; 0 <= start <= stop <= len."""

    def reader(
        self, cache_dir: str | None = None, progress: Callable[[int], None] = no_progress
    ) -> ExampleReader:
        """Returns a reader; what it needs to find examples is cached in `cache_dir`, if not None.

        `progress` is called with the number of examples indexed since the last call.
        """

    def digest(self, all_bytes: bool = False) -> str:
        """Returns a digest of the stored examples and their order, in hexadecimal.

        Without `all_bytes`, samples of large files are hashed instead of all of their bytes.
        """

    def in_common(self, other: DataSplit) -> int:
        """Returns the number of this split's examples that are examples of `other`, too.

        The same stored example counts, not another one of equal content.
        """

    def repeated(self) -> int:
        """Returns the number of examples that are in the split a second time or more."""


def repeats(indices: np.ndarray) -> int:
    """Returns how many of the indices, int [n], have occurred before."""
    return len(indices) - len(np.unique(indices))


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
    """Examples in memory: nests of NumPy arrays [n, ...], and which of them are in the split."""

    name: str
    arrays: tuple[Nest, Nest]  # (inputs, targets), arrays [n, ...] of all examples
    indices: np.ndarray  # int64 [k], of the examples in the split

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, start: int, stop: int, name: str) -> ArraySplit:
        """Returns examples `start` to `stop` (exclusive) as a split."""
        return ArraySplit(name, self.arrays, self.indices[start:stop])

    def reader(
        self, cache_dir: str | None = None, progress: Callable[[int], None] = no_progress
    ) -> ArrayReader:
        """Returns a reader of the arrays."""
        return ArrayReader(self)

    def digest(self, all_bytes: bool = False) -> str:
        """Returns a digest of the examples' values, shapes and dtypes; `all_bytes` is as True."""
        digest = hashlib.sha256(nests.signature(nests.spec_of(self.arrays)).encode())
        for leaf in tf.nest.flatten(self.arrays):
            for start in range(0, len(self), _HASHED):
                rows = leaf[self.indices[start : start + _HASHED]]
                digest.update(np.ascontiguousarray(rows).tobytes())
        return digest.hexdigest()[:32]

    def in_common(self, other: DataSplit) -> int:
        """Returns the number of examples, of the same arrays, that `other` has too."""
        if not isinstance(other, ArraySplit) or other.arrays is not self.arrays:
            return 0
        return int(np.isin(self.indices, other.indices).sum())

    def repeated(self) -> int:
        """Returns the number of examples that are in the split a second time or more."""
        return repeats(self.indices)


_HASHED = 4096  # number of examples copied at a time to be hashed


class ArrayReader:
    """Reads the examples of an `ArraySplit`."""

    def __init__(self, split: ArraySplit) -> None:
        self._split, self.spec = split, nests.spec_of(split.arrays)

    def read(self, indices: np.ndarray) -> Nest:
        """Returns (inputs, targets) by index: arrays [k, ...]."""
        at = self._split.indices[indices]
        return tf.nest.map_structure(lambda array: array[at], self._split.arrays)

    def targets(self) -> Any:
        """Returns the targets of all examples."""
        return tf.nest.map_structure(
            lambda array: array[self._split.indices], self._split.arrays[1]
        )
