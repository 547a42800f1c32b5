"""Which examples step t sees, and where; what a batch is, and what a feed must offer.

One global batch is `global_batch_size` consecutive places of the epoch's order. It is cut into
micro-batches, which a device computes in turn, and each of those into shards, an equal number for
every device. What a device computes at once is a piece: one shard of one micro-batch. By default
there is one micro-batch, and one shard a device. Which rows form a micro-batch does not depend on
the number of devices, nor which rows form a shard where their number is given.

Places past the epoch's end, or past a piece where the cuts do not come out even, are padding: a
mask of zero, so that they weigh nothing (L1). What stands there is an example of the same global
batch: were it of another one, a nan in it would come into a step that does not see it, because
zero times nan is nan. All of it is a pure function of (seed, step) (L4).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from pipelines import order


class Batch(NamedTuple):
    """One piece of a global batch."""

    inputs: tf.Tensor  # uint8 or float32 [rows, H, W, C]; one row more where the plan looks ahead
    targets: tf.Tensor  # int32, as many
    mask: tf.Tensor  # float32 [rows]: 1 an example, 0 padding
    row: tf.Tensor  # int64 []: place of the first row in the global batch
    valid: tf.Tensor  # float32 []: examples in the global batch, over all its pieces
    epoch: tf.Tensor  # int64 []
    place: tf.Tensor  # int64 []: place of the first row in the epoch's order


class Opened(NamedTuple):
    """What the graph is given for some steps.

    steps: how many, 1 or more.
    given: nested tensors, of the same shapes every time.
    """

    steps: int
    given: Any


class Feed(Protocol):
    """What the loop needs of a feed; implement it to bring another source of batches."""

    examples: int
    steps_per_epoch: int
    layout: Layout

    def open(self, step: int, steps: int) -> Opened:
        """On the host: what the graph needs for `steps` steps from `step`, all in one epoch.

        It may be for fewer of them; then it is asked again for the others.
        """

    def next(self, given: Any) -> Any:
        """In the graph, across replicas: what `batch` needs for one more step."""

    def batch(
        self, element: Any, step: tf.Tensor, replica: tf.Tensor | int, piece: tf.Tensor | int
    ) -> Batch:
        """In the graph, on a replica: a piece of its portion of the global batch of `step`."""

    def close(self) -> None:
        """On the host: stops reading ahead, where it does."""


def opened(feed: Feed, step: int, steps: int) -> Opened:
    """Opens a feed, and checks that it gives what it must.

    Args:
      feed: of the batches.
      step: the first one, 0 or more.
      steps: how many are wanted, 1 or more, all in one epoch.

    Raises:
      ValueError: when no step is asked for, or steps of two epochs.
      RuntimeError: when the feed does not give 1 to `steps` steps.
    """
    if step < 0 or steps < 1:
        raise ValueError(f"{steps} steps from step {step} were asked of a feed: must be 1 or more")
    if step % feed.steps_per_epoch + steps > feed.steps_per_epoch:
        raise ValueError(f"{steps} steps from step {step} do not lie in one epoch")
    found = feed.open(step, steps)
    if not 1 <= found.steps <= steps:
        raise RuntimeError(f"a feed was asked for {steps} steps and gave {found.steps}")
    return found


class Layout(NamedTuple):
    """How a global batch is cut.

    replicas: devices that share it.
    micro_batches: that each device computes in turn, of ceil(global batch / micro_batches) rows.
    shards: of each micro-batch, over all devices; 0: one a device. A multiple of the replicas.
    """

    replicas: int = 1
    micro_batches: int = 1
    shards: int = 0

    @property
    def all_shards(self) -> int:
        """Shards of a micro-batch, over all replicas."""
        return self.shards or self.replicas

    @property
    def local_shards(self) -> int:
        """Shards of a micro-batch that one replica computes."""
        return self.all_shards // self.replicas

    @property
    def pieces(self) -> int:
        """Pieces of a global batch that one replica computes, shard by shard."""
        return self.local_shards * self.micro_batches


class Plan:
    """The arithmetic that both feeds share: step -> places -> examples.

    Args:
      examples: of the split, n, 1 or more.
      global_batch_size: examples of one full step, over all replicas, 1 or more.
      layout: how a global batch is cut.
      seed: of the order; None: file order, every epoch (evaluation).
      look_ahead: whether a piece comes with the example after its last one (for mixup).
    """

    def __init__(
        self,
        *,
        examples: int,
        global_batch_size: int,
        layout: Layout,
        seed: int | None,
        look_ahead: bool = False,
    ) -> None:
        self.examples = examples
        # A batch beyond the split would hold the same examples and padding: nothing but memory.
        self.global_batch_size = min(global_batch_size, examples)
        self.layout = layout
        self._micro_rows = -(-self.global_batch_size // layout.micro_batches)
        self.rows = -(-self._micro_rows // layout.all_shards)  # of a piece
        self.fetched = self.rows + look_ahead  # examples that a piece is made from
        self.steps_per_epoch = order.steps_per_epoch(examples, global_batch_size)
        self._look_ahead = int(look_ahead)
        self._seed = seed

    def order(self, epoch: int) -> np.ndarray:
        """The order of an epoch, int32 [n]."""
        if self._seed is None:
            return np.arange(self.examples, dtype=np.int32)
        return order.permutation(self._seed, epoch, self.examples)

    def chosen(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Which examples stand at some places of the order of an epoch, int [k]."""
        if self._seed is None:
            return places
        return order.permuted(self._seed, epoch, self.examples, places)

    @property
    def in_file_order(self) -> bool:
        """Whether every epoch is the same."""
        return self._seed is None

    def places(self, step: Any, replica: Any, piece: Any, arange: Any) -> Any:
        """(place of the first row in the global batch, place of each row in the epoch, valid).

        The same lines serve NumPy on the host and tensors in the graph. The example after the
        epoch's last one, for mixup, is its first. `valid` is boolean, and false for rows that are
        padding or belong to another piece.

        Args:
          step: int64, the training step.
          replica: int64, from 0.
          piece: int64, from 0, of the replica's.
          arange: int64 [m], rows of the piece to tell of, from 0.
        """
        layout = self.layout
        shard = replica * layout.local_shards + piece // layout.micro_batches
        in_micro_batch = shard * self.rows + arange
        in_batch = piece % layout.micro_batches * self._micro_rows + in_micro_batch
        begin = step % self.steps_per_epoch * self.global_batch_size
        in_epoch = begin + in_batch
        valid = (
            (arange < self.rows)
            & (in_micro_batch < self._micro_rows)
            & (in_batch < self.global_batch_size)
            & (in_epoch < self.examples)
        )
        minimum = tf.minimum if tf.is_tensor(arange) else np.minimum
        end = minimum(begin + self.global_batch_size, self.examples)
        return in_batch[0], minimum(in_epoch, end - 1 + self._look_ahead), valid

    def masked(
        self, inputs: tf.Tensor, targets: tf.Tensor, step: tf.Tensor, replica: Any, piece: Any
    ) -> Batch:
        """A Batch of the rows that were fetched for a piece."""
        replica, piece = tf.cast(replica, tf.int64), tf.cast(piece, tf.int64)
        arange = tf.range(self.rows, dtype=tf.int64)
        first, in_epoch, valid = self.places(step, replica, piece, arange)
        left = self.examples - step % self.steps_per_epoch * self.global_batch_size
        return Batch(
            inputs,
            targets,
            tf.cast(valid, tf.float32),
            first,
            tf.cast(tf.minimum(left, self.global_batch_size), tf.float32),
            step // self.steps_per_epoch,
            in_epoch[0],
        )
