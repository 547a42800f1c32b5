"""The layout of batches: which examples a step contains, and the interface of a feed.

A global batch is `global_batch_size` consecutive positions of the epoch's order. It is cut into
micro-batches, which a device computes one after the other, and each micro-batch into shards, an
equal number for every device. At once, a device computes one shard of one micro-batch: a local
micro-batch. By default there is one micro-batch, and one shard per device. Which rows form a
micro-batch does not depend on the number of devices. Nor does which rows form a shard, where the
number of shards is given.

Positions past the end of the epoch, or past a micro-batch that does not divide evenly, are padding:
their mask is zero, so they have no weight (L1). A padding row holds an example of the same global
batch. If it were an example of another batch, a nan in it would reach a step that does not
contain it, because zero times nan is nan. The layout is a pure function of (seed, step) (L4).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from pipelines import order


class Batch(NamedTuple):
    """A local micro-batch: the rows that a replica computes at once."""

    inputs: tf.Tensor  # uint8 or float32 [rows, H, W, C]; one more row with look_ahead
    targets: tf.Tensor  # int32, one per row of inputs
    mask: tf.Tensor  # float32 [rows]: 1 for an example, 0 for padding
    row: tf.Tensor  # int64 []: position of the first row in the global batch
    valid: tf.Tensor  # float32 []: examples in the global batch, over all replicas
    epoch: tf.Tensor  # int64 []
    place: tf.Tensor  # int64 []: position of the first row in the epoch's order


class OpenedSteps(NamedTuple):
    """The input of the graph for some steps.

    Attributes:
      steps: number of steps, 1 or more.
      given: nested tensors, of the same shapes in every call.
    """

    steps: int
    given: Any


class Feed(Protocol):
    """Interface between a feed and the loop; implement it to add another source of batches."""

    examples: int
    steps_per_epoch: int
    layout: BatchLayout

    def open(self, step: int, steps: int) -> OpenedSteps:
        """Returns the graph's input for `steps` steps from `step`, all in one epoch; on the host.

        It may cover fewer steps; `open` is then called again for the rest.
        """

    def next(self, given: Any) -> Any:
        """Returns the element of the next step for `batch`; in the graph, across replicas."""

    def batch(
        self, element: Any, step: tf.Tensor, replica: tf.Tensor | int, micro_batch: tf.Tensor | int
    ) -> Batch:
        """Returns a local micro-batch of the global batch of `step`; in the graph, on a replica."""

    def close(self) -> None:
        """Stops prefetching, where the feed does it; on the host."""


def opened(feed: Feed, step: int, steps: int) -> OpenedSteps:
    """Opens a feed and checks the number of steps that it returns.

    Args:
      feed: feed of the batches.
      step: first step, 0 or more.
      steps: number of steps requested, 1 or more, all in one epoch.

    Raises:
      ValueError: for fewer than 1 step, a negative step, or steps of two epochs.
      RuntimeError: when the feed does not return 1 to `steps` steps.
    """
    if step < 0 or steps < 1:
        raise ValueError(f"{steps} steps from step {step} were asked of a feed: must be 1 or more")
    if step % feed.steps_per_epoch + steps > feed.steps_per_epoch:
        raise ValueError(f"{steps} steps from step {step} do not lie in one epoch")
    found = feed.open(step, steps)
    if not 1 <= found.steps <= steps:
        raise RuntimeError(f"a feed was asked for {steps} steps and gave {found.steps}")
    return found


class BatchLayout(NamedTuple):
    """How a global batch is cut into micro-batches and shards.

    Attributes:
      replicas: number of replicas that share a global batch.
      micro_batches: number of micro-batches, of ceil(global batch / micro_batches) rows each; a
        device computes them one after the other.
      shards: shards of each micro-batch over all replicas, a multiple of `replicas`; 0: one per
        replica.
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
    def local_micro_batches(self) -> int:
        """Local micro-batches of a global batch that one replica computes, shard by shard."""
        return self.local_shards * self.micro_batches


class BatchPlan:
    """The arithmetic that both feeds share: step -> positions in the epoch -> examples.

    Args:
      examples: number of examples of the split, n, 1 or more.
      global_batch_size: examples of a full step, over all replicas, 1 or more.
      layout: how a global batch is cut.
      seed: seed of the order of each epoch; None: file order in every epoch (evaluation).
      include_next_example: whether a micro-batch includes the example after its last, for mixup.
    """

    def __init__(
        self,
        *,
        examples: int,
        global_batch_size: int,
        layout: BatchLayout,
        seed: int | None,
        include_next_example: bool = False,
    ) -> None:
        self.examples = examples
        # A larger batch would hold the same examples and padding, and only take more memory.
        self.global_batch_size = min(global_batch_size, examples)
        self.layout = layout
        self._micro_rows = -(-self.global_batch_size // layout.micro_batches)
        self.rows = -(-self._micro_rows // layout.all_shards)  # of a local micro-batch
        self.fetched = self.rows + include_next_example  # examples fetched for them
        self.steps_per_epoch = order.steps_per_epoch(examples, global_batch_size)
        self._look_ahead = int(include_next_example)
        self._seed = seed

    def order(self, epoch: int) -> np.ndarray:
        """Returns the order of an epoch, int32 [n]."""
        if self._seed is None:
            return np.arange(self.examples, dtype=np.int32)
        return order.permutation(self._seed, epoch, self.examples)

    def chosen(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Returns the examples at some positions of an epoch's order, int [k]."""
        if self._seed is None:
            return places
        return order.permutation_at(self._seed, epoch, self.examples, places)

    @property
    def in_file_order(self) -> bool:
        """Whether every epoch is in file order."""
        return self._seed is None

    def places(self, step: Any, replica: Any, micro_batch: Any, arange: Any) -> Any:
        """Returns the positions of the rows of a local micro-batch.

        The same code serves NumPy on the host and tensors in the graph.

        Args:
          step: training step, int64.
          replica: index of the replica, int64.
          micro_batch: index of the micro-batch among those of the replica, int64.
          arange: row indices in the micro-batch, int64 [m].

        Returns:
          Position of the first row in the global batch; position of each row in the epoch, where
          `examples` means the first one (for mixup); and bool [m], false for rows that are padding
          or belong to another micro-batch.
        """
        layout = self.layout
        shard = replica * layout.local_shards + micro_batch // layout.micro_batches
        in_micro_batch = shard * self.rows + arange
        in_batch = micro_batch % layout.micro_batches * self._micro_rows + in_micro_batch
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
        self, inputs: tf.Tensor, targets: tf.Tensor, step: tf.Tensor, replica: Any, micro_batch: Any
    ) -> Batch:
        """Returns the Batch of the rows that were fetched for a local micro-batch."""
        replica, micro_batch = tf.cast(replica, tf.int64), tf.cast(micro_batch, tf.int64)
        arange = tf.range(self.rows, dtype=tf.int64)
        first, in_epoch, valid = self.places(step, replica, micro_batch, arange)
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
