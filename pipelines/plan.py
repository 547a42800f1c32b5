"""Which examples step t sees, on which replica; what a batch is, and what a feed must offer.

One global batch is `global_batch_size` consecutive places of the epoch's order; replica r of N
holds an equal portion of them. Places past the epoch's end, or past the global batch where N does
not divide it, are padding: a mask of zero, so that they weigh nothing (L1). All of it is a pure
function of (seed, step) (L4).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from pipelines import order


class Batch(NamedTuple):
    """One replica's portion of a global batch."""

    inputs: tf.Tensor  # uint8 [rows, H, W, C]
    targets: tf.Tensor  # int32 [rows]
    mask: tf.Tensor  # float32 [rows]: 1 an example, 0 padding
    row: tf.Tensor  # int64 []: place of the first row in the global batch
    valid: tf.Tensor  # float32 []: examples in the global batch, over all replicas


class Feed(Protocol):
    """What the loop needs of a feed; implement it to bring another source of batches."""

    examples: int
    steps_per_epoch: int

    def open(self, step: int, steps: int) -> Any:
        """On the host: what the graph needs for `steps` steps from `step`, all in one epoch."""

    def next(self, opened: Any) -> Any:
        """In the graph, across replicas: what `batch` needs for one more step."""

    def batch(self, element: Any, step: tf.Tensor, replica: tf.Tensor | int) -> Batch:
        """In the graph, on a replica: its portion of the global batch of `step` (int64 [])."""

    def close(self) -> None:
        """On the host: stops reading ahead, where it does."""


class Plan:
    """The arithmetic that both feeds share: step -> places -> examples.

    Args:
      examples: of the split, n.
      global_batch_size: examples of one full step, over all replicas.
      replicas: devices that share a global batch.
      seed: of the order; None: file order, every epoch (evaluation).
    """

    def __init__(
        self, *, examples: int, global_batch_size: int, replicas: int, seed: int | None
    ) -> None:
        self.examples = examples
        # A batch beyond the split would hold the same examples and padding: nothing but memory.
        self.global_batch_size = min(global_batch_size, examples)
        self.rows = -(-self.global_batch_size // replicas)
        self.replicas = replicas
        self.steps_per_epoch = order.steps_per_epoch(examples, global_batch_size)
        self._seed = seed

    def order(self, epoch: int) -> np.ndarray:
        """The order of an epoch, int32 [n]."""
        if self._seed is None:
            return np.arange(self.examples, dtype=np.int32)
        return order.permutation(self._seed, epoch, self.examples)

    def places(self, step: Any, replica: Any, arange: Any) -> Any:
        """(place of the first row in the global batch, place of each row in the epoch, valid).

        Integer arithmetic only, so the same lines serve NumPy on the host and tensors in the
        graph. `valid` is boolean [rows].
        """
        first = replica * self.rows
        in_batch = first + arange
        in_epoch = step % self.steps_per_epoch * self.global_batch_size + in_batch
        return first, in_epoch, (in_batch < self.global_batch_size) & (in_epoch < self.examples)

    def masked(self, inputs: tf.Tensor, targets: tf.Tensor, step: tf.Tensor, replica: Any) -> Batch:
        """A Batch of rows that were fetched for `step` and `replica`."""
        replica = tf.cast(replica, tf.int64)
        first, _, valid = self.places(step, replica, tf.range(self.rows, dtype=tf.int64))
        left = self.examples - step % self.steps_per_epoch * self.global_batch_size
        return Batch(
            inputs,
            targets,
            tf.cast(valid, tf.float32),
            first,
            tf.cast(tf.minimum(left, self.global_batch_size), tf.float32),
        )
