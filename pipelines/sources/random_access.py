"""Data sets whose examples a user's function reads by index."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.errors import one_line_message
from pipelines.nests import Nest, Spec
from pipelines.rows import Rows
from pipelines.source import Source
from pipelines.sources import arrays, description
from pipelines.sources.description import SourceOptions
from pipelines.splits import DataSplit, whole

_SAMPLED = 256  # number of examples hashed for the identity of a large data set without a version
_HASHED = 1 << 20  # number of row numbers hashed at a time
_ALL_BYTES = 64 << 20  # largest size in bytes of a data set whose examples are all hashed

Read = Callable[[int], tuple[Nest, Nest]]
Held = float | tuple[int, Read]  # a held-out split: a fraction, or (examples, read)


@dataclasses.dataclass(frozen=True, eq=False)
class RandomAccess:
    """Description of a data set that a function reads; fields as arguments of `random_access`."""

    examples: int
    read: Read
    validation: Held | Mapping[str, Held] | None
    test: Held | None
    class_names: int | Sequence[str]
    version: str
    shuffle: bool

    def open(self, name: str, options: SourceOptions) -> Source:
        """Reads the first example and returns the source, called `name` in messages.

        Raises:
          ValueError: when the example cannot be read or used, a split cannot be used, or an option
            does not apply.
        """
        description.refuse_unusable(name, options, self.examples)
        class_names = description.class_names_of(self.class_names)  # type: ignore[arg-type]
        table = AccessTable(name, self.examples, self.read, self.version, class_names)

        def separate(key: str, held: tuple[int, Read]) -> DataSplit:
            of_split = f"{key} of {name}"
            own = AccessTable(of_split, *held, self.version, class_names, table.spec)
            return whole(key, own, held[0])

        train = whole("train", table, self.examples, self.shuffle)
        splits = arrays.held_out_splits(name, train, self.validation, self.test, separate)
        version = self.version or "random access"
        return description.decoded_source(name, version, table.spec, splits, class_names, options)


def random_access(
    *,
    examples: int,
    read: Read,
    validation: Any = None,
    test: Any = None,
    class_names: int | Sequence[str] = (),
    version: str = "",
    shuffle: bool = True,
) -> RandomAccess:
    """Describes a data set that a function reads; for functions that `tl.source` registers.

    Args:
      examples: number of examples.
      read: returns (inputs, targets) of the example with an index from 0 to examples - 1: nests of
        arrays or numbers, with the same shapes and dtypes for all examples. It is called by several
        threads and must always return the same values for an index.
      validation: a fraction of the examples, or (examples, read) of a separate split; a dict of
        these: several validation sets by name; None: `--validation_split` decides.
      test: a fraction, or (examples, read); None: no test split.
      class_names: names of the classes, or their number, if the targets are class labels.
      version: text that identifies the data for resumed runs; must change when the data changes.
        "": the examples are read and hashed at every start; if they take more than 64 MiB, only a
        sample of them.
      shuffle: whether fractions are taken from a random order of the examples, which is the same in
        every run. False: fractions are taken from the end, as for time series. Up to 2**31 examples
        a random order takes 8 bytes of memory an example; beyond, it is computed.
    """
    return RandomAccess(examples, read, validation, test, class_names, version, shuffle)


class AccessTable:
    """Table of decoded examples that a function reads.

    The constructor reads the first example, whose spec is that of the table unless `spec` is given.

    Raises:
      ValueError: when the first example cannot be read, or a spec is not fixed or not numeric.
    """

    def __init__(
        self,
        name: str,
        examples: int,
        read: Read,
        version: str,
        class_names: tuple[str, ...],
        spec: Spec | None = None,
    ) -> None:
        self._name, self._examples, self._read = name, examples, read
        self._version, self._class_names = version, class_names
        first = nests.spec_of(tf.nest.map_structure(lambda leaf: leaf[None], self._example(0)))
        self.spec = description.checked_specs(name, spec if spec is not None else first)

    def read(self, rows: np.ndarray) -> Nest:
        """Returns (inputs, targets) by row, int [k]: nests of arrays [k, ...].

        Raises:
          ValueError: when an example cannot be read or has another spec.
        """
        stacked = nests.empty(self.spec, len(rows))
        leaves = tf.nest.flatten(stacked)
        expected = nests.signature(self.spec)
        for place, row in enumerate(rows.tolist()):
            example = self._example(row)
            found = tf.nest.map_structure(
                lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), example
            )
            if nests.signature(found) != expected:
                raise ValueError(
                    f"example {row} of {self._name} is {nests.described(found)}, and example 0 is "
                    f"{nests.described(self.spec)}: all have to have one shape and dtype"
                )
            for leaf, value in zip(leaves, tf.nest.flatten(example), strict=True):
                leaf[place] = value
        return stacked

    def _example(self, row: int) -> tuple[Nest, Nest]:
        """Returns (inputs, targets) of one example as nests of arrays, with class labels as int32.

        Raises:
          ValueError: when the example cannot be read or has values that cannot be used.
        """
        where = f"example {row} of {self._name}"
        try:
            pair = self._read(row)
        except Exception as error:  # any error of the user's function
            kind = type(error).__name__
            raise ValueError(
                f"{where} cannot be read: {kind}: {one_line_message(error, 160)}"
            ) from error
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"{where}: read has to return a pair (inputs, targets)")
        inputs, targets = tf.nest.map_structure(
            lambda leaf: arrays.as_array(where, leaf), nests.without_lists(pair)
        )
        if self._class_names and not tf.nest.is_nested(targets):
            labels = arrays.as_labels(where, targets.reshape(-1), self._class_names)
            targets = labels.reshape(() if targets.size == 1 else targets.shape)
        return inputs, targets

    def targets(self, rows: np.ndarray | Rows) -> None:
        """Returns None, because targets cannot be read without inputs."""

    def location(self, row: int) -> str:
        """Returns "example" and the row, for messages."""
        return f"example {row}"

    def digest(self, rows: np.ndarray | Rows, all_bytes: bool) -> str:
        """Returns a hexadecimal digest of spec, rows and version.

        If there is no version, the examples at `rows` are hashed, too; if they take more than 64
        MiB and `all_bytes` is False, only a sample of them is.

        Raises:
          ValueError: when an example cannot be read or has another spec.
        """
        content = f"{nests.signature(self.spec)}\n{self._version}\n"
        digest = hashlib.sha256(content.encode())
        if isinstance(rows, Rows) and rows.computed:
            digest.update(f"{rows}\n".encode())
        else:
            for start in range(0, len(rows), _HASHED):
                some = np.asarray(rows[start : start + _HASHED])
                digest.update(np.ascontiguousarray(some, "<i8").tobytes())
        if not self._version:
            size = len(rows) * nests.example_bytes(self.spec)
            if size > _ALL_BYTES and not all_bytes:
                rows = rows[np.linspace(0, len(rows) - 1, _SAMPLED).astype(np.int64)]
            for start in range(0, len(rows), _SAMPLED):
                some = np.asarray(rows[start : start + _SAMPLED])
                for leaf in tf.nest.flatten(self.read(some)):
                    digest.update(leaf.tobytes())
        return digest.hexdigest()[:32]
