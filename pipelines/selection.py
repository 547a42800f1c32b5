"""A fixed selection of a split's examples, spread over the split, for evaluations of a part of it.

Which examples are selected is a pure function of the split's size and of their number.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pipelines import order
from pipelines.nests import Nest, Spec
from pipelines.source import Source
from pipelines.splits import DataSplit, ExampleReader, no_progress


def spread(examples: int, count: int) -> np.ndarray:
    """Returns the indices of `count` examples of a split of `examples`, ascending, int64 [count].

    The split is divided into `count` ranges of consecutive examples, whose sizes differ by 1 at
    most, and a random example of each is selected, by the same random numbers always. So examples
    that are sorted by class, or alternate in a fixed order, are represented in proportion.

    Raises:
      ValueError: when `count` is not in 1 .. examples.
    """
    if not 1 <= count <= examples:
        raise ValueError(f"{count} of {examples} examples: must be 1 to {examples}")
    edges = np.arange(count + 1, dtype=np.int64) * examples // count
    draws = order.uniform(0, 0, np.arange(count), 1)[:, 0]
    return edges[:-1] + np.floor(draws * np.diff(edges)).astype(np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class SelectedSplit:
    """Some examples of a split, given by their indices in it."""

    name: str
    whole: DataSplit
    rows: np.ndarray  # int64 [n], indices in `whole`

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int, name: str) -> SelectedSplit:
        """Returns examples `start` to `stop` (exclusive) as a split."""
        return SelectedSplit(name, self.whole, self.rows[start:stop])

    def reader(
        self,
        cache_dir: str | None = None,
        progress: Callable[[int], None] = no_progress,
        only: np.ndarray | None = None,
    ) -> SelectedReader:
        """Returns a reader of the selected examples; see `DataSplit.reader`."""
        rows = self.rows if only is None else self.rows[only]
        return SelectedReader(self.whole.reader(cache_dir, progress, rows), self.rows)

    def digest(self, all_bytes: bool = False) -> str:
        """Returns a digest of the whole split and of the indices; see `DataSplit.digest`."""
        text = f"{self.whole.digest(all_bytes)}\n".encode()
        content = text + np.ascontiguousarray(self.rows, "<i8").tobytes()
        return hashlib.sha256(content).hexdigest()[:32]

    def in_common(self, other: DataSplit) -> int:
        """Returns the number of examples of the whole split that are also in `other`."""
        return self.whole.in_common(other)

    def repeated(self) -> int:
        """Returns the number of repeats in the whole split."""
        return self.whole.repeated()


@dataclasses.dataclass(frozen=True, eq=False)
class SelectedReader:
    """Reader of the examples of a `SelectedSplit` by index; raises the errors of `whole`."""

    whole: ExampleReader
    rows: np.ndarray  # int64 [n]

    @property
    def spec(self) -> Spec:
        """Spec of one stored example."""
        return self.whole.spec

    def read(self, indices: np.ndarray) -> Nest:
        """Returns stored examples by index, int [k]: a nest of arrays [k, ...]."""
        return self.whole.read(self.rows[indices])

    def targets(self) -> Nest | None:
        """Returns the targets, a nest of [n, ...]; None if examples must be read for them."""
        targets = self.whole.targets()
        if targets is None:
            return None
        return tf.nest.map_structure(lambda leaf: leaf[self.rows], targets)

    def location(self, index: int) -> str:
        """Returns the place of an example in the whole split, for messages."""
        return self.whole.location(int(self.rows[index]))


def with_selected(source: Source, count: int) -> Source:
    """Returns the source with `count` examples of each larger validation set; 0: with all.

    The examples are those of `spread`.
    """
    if not count:
        return source
    sets = {name: _selected(split, count) for name, split in source.validation_sets.items()}
    return dataclasses.replace(source, validation_sets=sets)


def _selected(split: DataSplit, count: int) -> DataSplit:
    if len(split) <= count:
        return split
    name = f"{split.name} ({count:,} of {len(split):,})"
    return SelectedSplit(name, split, spread(len(split), count))


def size_text(split: DataSplit) -> str:
    """Returns the number of examples as text, such as "360", or "100 of 360" of a selection."""
    of = f" of {len(split.whole):,}" if isinstance(split, SelectedSplit) else ""
    return f"{len(split):,}{of}"
