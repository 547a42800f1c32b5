"""The layout of batches, a pure function of seed and step, and `Feed`, which supplies batches.

A global batch is a range of consecutive positions in the epoch's order. It is divided into
micro-batches, and each micro-batch into shards. A device computes one shard of one micro-batch at a
time: a local micro-batch. The laws, such as L1, are in docs/concepts/laws.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from pipelines import order
from pipelines.nests import Nest


class Batch(NamedTuple):
    """A local micro-batch: the rows of a global batch that a replica computes at once."""

    inputs: Nest  # tensors [rows, ...]; one more row for mixup or CutMix
    targets: Nest  # tensors [rows, ...], one row per row of the inputs
    mask: tf.Tensor  # float32 [rows]: 1 for an example, 0 for padding
    row: tf.Tensor  # int64 []: position of the first row in the global batch
    valid: tf.Tensor  # float32 []: number of examples in the global batch, over all replicas
    epoch: tf.Tensor  # int64 []: epoch of the step
    position: tf.Tensor  # int64 []: position of the first row in the epoch's order
    # float32 [rows]: `order.fixed` of each example, the same in all epochs; (): not needed
    fixed: tf.Tensor | tuple[()] = ()


def unpadded_batch(
    inputs: Nest, targets: Nest, rows: int, epoch: int = 0, fixed: np.ndarray | None = None
) -> Batch:
    """Returns a batch of decoded examples without padding, as the whole global batch of a step.

    Args:
      inputs: nest of arrays [k, ...], where k is `rows`, or one more for mixup or CutMix.
      targets: nest of arrays [k, ...].
      rows: number of rows of the batch.
      epoch: epoch of the step.
      fixed: `Batch.fixed`, float32 [k]; None: none.
    """
    return Batch(
        inputs=tf.nest.map_structure(tf.constant, inputs),
        targets=tf.nest.map_structure(tf.constant, targets),
        mask=tf.ones([rows]),
        row=tf.constant(0, tf.int64),
        valid=tf.constant(float(rows)),
        epoch=tf.constant(epoch, tf.int64),
        position=tf.constant(0, tf.int64),
        fixed=() if fixed is None else tf.constant(fixed),
    )


class OpenedSteps(NamedTuple):
    """Result of `Feed.open`: a number of steps, and the graph's input for these steps."""

    steps: int  # 1 or more
    given: Any  # argument of `Feed.next`: nest of tensors, of the same structure and shapes always


class Feed(Protocol):
    """Interface of an object that supplies batches to the training and evaluation loops."""

    examples: int  # number of examples in the split
    steps_per_epoch: int
    layout: BatchLayout
    has_padding: bool  # whether a local micro-batch of a step can have rows that are padding

    def open(self, step: int, steps: int) -> OpenedSteps:
        """Returns how many steps from `step` can run, 1 to `steps`, and the graph's input for them.

        Called on the host. The steps `step` to `step + steps - 1` are in one epoch.
        """

    def next(self, given: Any) -> Any:
        """Returns the `element` argument of `batch` for one step, from `OpenedSteps.given`.

        Called once per step, in the graph or eagerly, in cross-replica context.
        """

    def batch(
        self, element: Any, step: tf.Tensor, replica: tf.Tensor | int, micro_batch: tf.Tensor | int
    ) -> Batch:
        """Returns a local micro-batch of a replica in a step.

        Called in the graph or eagerly, in replica context.

        Args:
          element: result of `next`, with the replica's values instead of per-replica values.
          step: step of the run, from 0, int64 [].
          replica: index of the replica among the replicas of all workers.
          micro_batch: index of the local micro-batch, from 0 to `layout.local_micro_batches` - 1.
        """

    def close(self) -> None:
        """Stops prefetching, if the feed prefetches."""


def opened(feed: Feed, step: int, steps: int) -> OpenedSteps:
    """Calls `feed.open(step, steps)` and returns the result; checks the arguments and the result.

    Raises:
      ValueError: for fewer than 1 step, a negative step, or steps of more than one epoch.
      RuntimeError: when the feed does not return 1 to `steps` steps.
    """
    if step < 0 or steps < 1:
        raise ValueError(f"{steps} steps from step {step} were asked of a feed: must be 1 or more")
    if step % feed.steps_per_epoch + steps > feed.steps_per_epoch:
        raise ValueError(f"{steps} steps from step {step} do not lie in one epoch")
    result = feed.open(step, steps)
    if not 1 <= result.steps <= steps:
        raise RuntimeError(f"a feed was asked for {steps} steps and gave {result.steps}")
    return result


class BatchLayout(NamedTuple):
    """Division of a global batch into micro-batches and shards."""

    replicas: int = 1
    micro_batches: int = 1  # of ceil(global batch / micro_batches) rows each
    shards: int = 0  # of a micro-batch, over all replicas, whose multiple it is; 0: one per replica

    @property
    def all_shards(self) -> int:
        """Number of shards of a micro-batch, over all replicas."""
        return self.shards or self.replicas

    @property
    def local_shards(self) -> int:
        """Number of shards of a micro-batch that one replica computes."""
        return self.all_shards // self.replicas

    @property
    def local_micro_batches(self) -> int:
        """Number of local micro-batches of a replica per step; those of a shard are consecutive."""
        return self.local_shards * self.micro_batches


@dataclasses.dataclass(kw_only=True)
class BatchPlan:
    """Mapping of a step to positions in the epoch's order, and of positions to example indices.

    Raises:
      ValueError: when `examples` or `global_batch_size` is below 1.
    """

    examples: int  # of the split, n, 1 or more
    global_batch_size: int  # number of examples in a full step, over all replicas, 1 or more
    layout: BatchLayout
    seed: int | None  # of the order of each epoch; None: file order in every epoch (evaluation)
    include_next_example: bool = False  # a local micro-batch has the example after its last: mixup
    include_fixed: bool = False  # a batch has random numbers of its examples, `Batch.fixed`

    def __post_init__(self) -> None:
        self.steps_per_epoch = order.steps_per_epoch(self.examples, self.global_batch_size)
        # A larger batch would only add padding, which takes memory.
        self.global_batch_size = min(self.global_batch_size, self.examples)
        self._micro_rows = -(-self.global_batch_size // self.layout.micro_batches)
        self.rows = -(-self._micro_rows // self.layout.all_shards)  # rows of a local micro-batch
        self._look_ahead = int(self.include_next_example)
        self.fetched = self.rows + self._look_ahead  # examples fetched for these rows

    @property
    def has_padding(self) -> bool:
        """Whether a local micro-batch of an epoch has rows that are padding."""
        parts = self.layout.micro_batches * self.layout.all_shards
        whole = self.examples % self.global_batch_size == 0 == self.global_batch_size % parts
        return not whole

    def order(self, epoch: int) -> np.ndarray:
        """Returns the example indices in the order of an epoch, `order.index_dtype` [n]."""
        if self.seed is None:
            return np.arange(self.examples, dtype=order.index_dtype(self.examples))
        return order.permutation(self.seed, epoch, self.examples)

    def examples_at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Returns the example indices at positions of the epoch's order, int [k]."""
        if self.seed is None:
            return positions
        return order.permutation_at(self.seed, epoch, self.examples, positions)

    def positions(self, step: Any, replica: Any, micro_batch: Any, arange: Any) -> Any:
        """Returns the positions of rows of a local micro-batch, as NumPy arrays or tensors.

        Rows past the end of the epoch, or past a micro-batch that does not divide evenly, are
        padding, of weight 0 (law L1). A padding row holds an example that the step uses anyway:
        a NaN in another example would make the step NaN, because zero times NaN is NaN.

        Args:
          step: step of the run.
          replica: index of the replica among the replicas of all workers.
          micro_batch: index of the local micro-batch of the replica.
          arange: numbers of the rows in the local micro-batch, int [m]. The other arguments are
            integer scalars, or in NumPy also arrays that broadcast with these.

        Returns:
          Position of the first row in the global batch (if the arguments are scalars); position of
          each row in the epoch's order, where `self.examples` stands for position 0 (for mixup, the
          row after the last); and a bool for each row, False for padding and for rows of another
          local micro-batch.
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
        self,
        inputs: Nest,
        targets: Nest,
        step: tf.Tensor,
        replica: Any,
        micro_batch: Any,
        fixed: tf.Tensor | tuple[()] = (),
    ) -> Batch:
        """Returns the `Batch` of a local micro-batch whose inputs and targets have been fetched.

        `fixed` has the random numbers of its examples.
        """
        replica, micro_batch = tf.cast(replica, tf.int64), tf.cast(micro_batch, tf.int64)
        arange = tf.range(self.rows, dtype=tf.int64)
        first, in_epoch, valid = self.positions(step, replica, micro_batch, arange)
        left = self.examples - step % self.steps_per_epoch * self.global_batch_size
        return Batch(
            inputs,
            targets,
            tf.cast(valid, tf.float32),
            first,
            tf.cast(tf.minimum(left, self.global_batch_size), tf.float32),
            step // self.steps_per_epoch,
            in_epoch[0],
            fixed,
        )
