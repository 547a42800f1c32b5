"""Splits without random access: a user's `tf.data` pipeline that is created for each epoch."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.errors import reason
from pipelines.nests import Nest, Spec
from pipelines.splits import DataSplit, no_progress

Make = Callable[[int, int], Any]  # (seed, epoch) -> tf.data.Dataset of (inputs, targets)


@dataclasses.dataclass(frozen=True, eq=False)
class SequentialSplit:
    """Examples `start` to `stop` (exclusive) of the pipeline `make(seed, epoch)`, for streaming.

    The order of an epoch is the pipeline's. Reading by index, as for a report, iterates over the
    pipeline of seed 0 and epoch 0.
    """

    name: str
    make: Make
    spec: Spec  # of (inputs, targets)
    version: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int, name: str) -> SequentialSplit:
        """Returns examples `start` to `stop` (exclusive) of this split as a split."""
        return dataclasses.replace(
            self, name=name, start=self.start + start, stop=self.start + stop
        )

    def reader(
        self,
        cache_dir: str | None = None,
        progress: Callable[[int], None] = no_progress,
        only: np.ndarray | None = None,
    ) -> SequentialReader:
        """Returns a reader with a separate pipeline; the arguments are ignored."""
        return SequentialReader(self)

    def digest(self, all_bytes: bool = False) -> str:
        """Returns a hexadecimal digest of version, range and spec; reads no example.

        The argument is ignored.
        """
        text = f"{self.version}\n{self.start} {self.stop}\n{nests.signature(self.spec)}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def in_common(self, other: DataSplit) -> int:
        """Returns 0: which examples the pipeline shares with another split is not known."""
        return 0

    def repeated(self) -> int:
        """Returns 0: whether the pipeline repeats examples is not known."""
        return 0


class SequentialReader:
    """Reader of examples by position in an epoch; restarts the pipeline for one that was freed."""

    def __init__(self, split: SequentialSplit) -> None:
        self._split, self.spec = split, split.spec
        self._epochs: dict[tuple[int, int], _Epoch] = {}

    def read(self, indices: np.ndarray) -> Nest:
        """Returns (inputs, targets) by position, int [k], in the pipeline of seed 0 and epoch 0.

        Frees the examples of other epochs and those before the smallest position, except example 0.
        Restarts the pipeline only if an example is no longer in memory. If `indices` is empty, does
        neither.

        Raises:
          ValueError: as `read_epoch`.
        """
        indices = np.asarray(indices)
        if not indices.size:
            return tf.nest.map_structure(
                lambda leaf: np.zeros((0, *leaf.shape), leaf.dtype.as_numpy_dtype), self.spec
            )
        self._epochs = {key: each for key, each in self._epochs.items() if key == (0, 0)}
        for each in self._epochs.values():
            each.forget(int(indices.min()))
        return self.read_epoch(0, 0, indices)

    def targets(self) -> None:
        """Returns None: no targets are available without reading the examples."""

    def location(self, index: int) -> str:
        """Returns the position of an example, for messages."""
        return f"example {index}"

    def read_epoch(self, seed: int, epoch: int, positions: np.ndarray) -> Nest:
        """Returns (inputs, targets) at positions of an epoch, int [k >= 1]: nests of [k, ...].

        Raises:
          ValueError: when the pipeline fails, has too few examples, or has one of another spec.
        """
        key = seed, epoch
        if key not in self._epochs or not self._epochs[key].has(positions):
            self._epochs[key] = _Epoch(self._split, seed, epoch)
        rows = self._epochs[key].rows(positions)
        leaves = [np.stack(each) for each in zip(*rows, strict=True)]
        return tf.nest.pack_sequence_as(self.spec, leaves)

    def forget(self, epoch: int, position: int) -> None:
        """Frees the memory of earlier epochs, and of the examples of `epoch` before `position`.

        The first example of `epoch` is kept, which mixup may need again.
        """
        for key, each in list(self._epochs.items()):
            if key[1] < epoch:
                del self._epochs[key]
            elif key[1] == epoch:
                each.forget(position)


class _Epoch:
    """Iteration over the pipeline of one epoch, which keeps examples until they are forgotten.

    Raises:
      ValueError: when the pipeline cannot be created or has elements of another spec.
    """

    def __init__(self, split: SequentialSplit, seed: int, epoch: int) -> None:
        self._split = split
        self._next, self._first = 0, 0  # position to be read next; of the oldest one kept
        self._kept: dict[int, list[np.ndarray]] = {}
        self._where = f"the pipeline of {split.name} in epoch {epoch}"
        options = tf.data.Options()
        options.autotune.enabled = False  # see options_without_autotune
        with tf.device("CPU:0"):
            dataset = _made(split, seed, epoch).with_options(options).skip(split.start)
            check_spec(self._where, dataset.element_spec, split.spec)
            self._iterator = iter(dataset)

    def has(self, positions: np.ndarray) -> bool:
        """Returns whether none of `positions`, int [k], is forgotten; position 0 is always kept."""
        return bool(np.all((positions >= self._first) | (positions == 0)))

    def rows(self, positions: np.ndarray) -> list[list[np.ndarray]]:
        """Returns the leaves of each example at positions, int [k]; reads on as far as necessary.

        Raises:
          ValueError: as `_read_next`.
        """
        last = int(positions.max(initial=-1))
        while self._next <= last:
            example = self._read_next()
            if self._next >= self._first or not self._next:
                self._kept[self._next] = example
            self._next += 1
        return [self._kept[position] for position in positions.tolist()]

    def forget(self, position: int) -> None:
        """Forgets the examples before a position, except the first, which mixup may need again."""
        for old in range(max(self._first, 1), min(position, self._next)):
            del self._kept[old]
        self._first = max(self._first, position)

    def _read_next(self) -> list[np.ndarray]:
        """Returns the leaves of the next example, in the order of `tf.nest`.

        Raises:
          ValueError: when the pipeline fails or ends early, or the example has another shape.
        """
        split, where, position = self._split, self._where, self._next
        try:
            with tf.device("CPU:0"):
                leaves = [leaf.numpy() for leaf in tf.nest.flatten(next(self._iterator))]
        except StopIteration:
            raise ValueError(
                f"{where} ended after {position} examples; {len(split)} were promised: give the "
                "right examples="
            ) from None
        except tf.errors.OpError as error:
            raise ValueError(f"{where} failed at example {position}: {reason(error)}") from None
        for leaf, spec in zip(leaves, tf.nest.flatten(split.spec), strict=True):
            if leaf.shape != tuple(spec.shape):
                raise ValueError(
                    f"example {position} of {where} has the shape {leaf.shape}, and "
                    f"{tuple(spec.shape)} is that of the first one"
                )
        return leaves


def _made(split: SequentialSplit, seed: int, epoch: int) -> tf.data.Dataset:
    """Returns the pipeline of an epoch; ValueError, with one line, if the user's function fails."""
    try:
        return split.make(seed, epoch)
    except Exception as error:  # any error of the user's function
        raise ValueError(
            f"the pipeline of {split.name}: make({seed}, {epoch}) failed: {reason(error)}"
        ) from error


def check_spec(where: str, found: Any, expected: Spec) -> None:
    """Raises ValueError if the elements of a pipeline cannot have the expected spec.

    `where` begins the message and names the pipeline.
    """
    try:
        tf.nest.assert_same_structure(found, expected)
        fits = all(
            isinstance(one, tf.TensorSpec)
            and one.dtype == other.dtype
            and one.shape.is_compatible_with(other.shape)
            for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
        )
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"{where} has other elements than the first one: {found}")
