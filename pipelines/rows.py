"""The rows of a table that a split selects, without an array of them where they can be computed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipelines import order


class Rows:
    """Rows of a table in a fixed order, each once: all of them, or by a slice a part of them.

    It is used like an int64 array [n]: it has a length, and can be indexed by a slice of
    consecutive positions, by one position and by arrays of positions, 0 or more. It is converted to
    an array by `np.asarray`.

    Args:
      examples: number of rows of the table.
      shuffle: whether the order is random, and the same in every run. Up to 2**31 rows it is held
        in memory; beyond, a row is computed from its position.
    """

    def __init__(self, examples: int, shuffle: bool = False) -> None:
        self._examples, self._shuffle = examples, shuffle
        self._start, self._stop = 0, examples
        self._order: np.ndarray | None = None
        if shuffle and not self.computed:
            self._order = np.random.default_rng(0).permutation(examples)

    @property
    def computed(self) -> bool:
        """Whether the table has so many rows that no array of them is made."""
        return self._examples > order.INT32_EXAMPLES

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, positions: Any) -> Any:
        if isinstance(positions, slice):
            start, stop, step = positions.indices(len(self))
            assert step == 1
            part = copy.copy(self)
            part._start = self._start + start
            part._stop = max(part._start, self._start + stop)
            return part
        places = np.asarray(positions, np.int64) + self._start
        if self._order is not None:
            return self._order[places]
        if self._shuffle:
            return order.permutation_at(0, 0, self._examples, places)
        return places

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found: np.ndarray = self[np.arange(len(self))]
        return found if dtype is None else found.astype(dtype)

    def __iter__(self) -> Iterator[Any]:
        return iter(np.asarray(self))

    def in_common(self, other: Rows) -> int | None:
        """Returns the number of rows that are in both parts of one order; None for two orders."""
        same = (self._examples, self._shuffle) == (other._examples, other._shuffle)
        if not same:
            return None
        return max(0, min(self._stop, other._stop) - max(self._start, other._start))

    def __repr__(self) -> str:
        shuffled = ", shuffled" * self._shuffle
        return f"rows {self._start} to {self._stop} of {self._examples}{shuffled}"
