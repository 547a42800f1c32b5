"""Gradient accumulation: sums over a replica's micro-batches and shards in a fixed order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.distributed.reduction import Tensors, pairwise_sum
from pipelines import Feed

Compute = Callable[..., Tensors]  # (Batch, *arguments) -> float32 tensors to sum


@dataclasses.dataclass(eq=False, repr=False)
class Accumulation:
    """Accumulator of the outputs of `compute` over the micro-batches and shards of a global batch.

    Each micro-batch is cut into shards, one or more per replica. For each shard of a replica, the
    outputs for all micro-batches are added sequentially. These sums are then added in a binary
    tree, neighbouring shards first; `tree_reduce` continues the tree over the replicas. So with
    virtual shards, the order of the additions is the same on any number of replicas. Memory holds
    only one partial sum per level of the tree.

    The loops count in int32, which TensorFlow keeps on the host. The index of a local micro-batch
    is int64, which each replica has on its device: no step copies it from the host to a GPU.
    """

    strategy: tf.distribute.Strategy
    feed: Feed
    zeros: Callable[[], Tensors]  # shaped as the output of `compute`; called in replica context
    compute: Compute  # computes a micro-batch; called in replica context

    def __post_init__(self) -> None:
        self._run, self._layout = self.strategy.run, self.feed.layout
        self._levels = self._layout.local_shards.bit_length() - 1

    def total(self, element: Any, step: tf.Tensor, *arguments: Any) -> Any:
        """Returns the sums of each replica over its part of a global batch.

        Called in cross-replica context, in the graph.

        Args:
          element: result of `feed.next`, the input of one step.
          step: index of the step, int64 [].
          *arguments: further arguments of `compute`, after the batch.

        Returns:
          The summed outputs of `compute`, a list of tensors, as per-replica values.
        """
        if not self._levels and self._layout.micro_batches == 1:
            return self._run(self._add_micro_batch, args=(element, step, 0, arguments))
        index = self._run(lambda: tf.zeros([], tf.int64))
        if not self._levels:
            return self._sum_shard(index, element, step, arguments)[1]

        def add_shard(shard: tf.Tensor, index: Any, sums: Any) -> tuple[tf.Tensor, Any, Any]:
            index, shard_sum = self._sum_shard(index, element, step, arguments)
            return shard + 1, index, self._run(self._carry, args=(sums, shard_sum, shard))

        # sums[level] is the sum over 2^level neighbouring shards, until it is added to the sum
        # over the next 2^level shards.
        zeros = self._run(lambda: [self.zeros() for _ in range(self._levels + 1)])
        *_, sums = tf.while_loop(
            lambda shard, *_: shard < self._layout.local_shards,
            add_shard,
            [tf.constant(0), index, zeros],
            parallel_iterations=1,
        )
        return sums[self._levels]

    def _carry(self, sums: list[Tensors], shard_sum: Tensors, shard: tf.Tensor) -> list[Tensors]:
        """Returns the sums of the levels of the tree after adding the sums of a shard.

        The sums are carried from level to level as in a binary counter: the sum over 2^level
        neighbouring shards is added to the sum over the next 2^level shards. Called in replica
        context.

        Args:
          sums: sums of each level; `sums[level]` is over 2^level shards.
          shard_sum: sums over the micro-batches of the shard.
          shard: index of the shard among those of the replica, int32 [].
        """

        def carry_to(level: int) -> list[Tensors]:
            carry = shard_sum
            for lower in sums[:level]:
                carry = pairwise_sum(lower, carry)
            return [*sums[:level], carry, *sums[level + 1 :]]

        with tf.device("CPU:0"):  # a GPU's kernels of these operations would keep int32 on the GPU
            full = tf.bitwise.bitwise_and(shard + 1, -(shard + 1))  # 2^(number of full levels)
            level = tf.reduce_sum(tf.cast(full > 2 ** tf.range(self._levels), tf.int32))
        branches = [lambda to=to: carry_to(to) for to in range(self._levels + 1)]
        return tf.switch_case(level, branches)

    def _sum_shard(self, index: Any, element: Any, step: tf.Tensor, arguments: Any) -> Any:
        """Sums over the micro-batches of one shard of each replica.

        Args:
          index: index of the shard's first local micro-batch, int64 [], on each replica.
          element: result of `feed.next`.
          step: index of the step, int64 [].
          arguments: further arguments of `compute`, as a tuple.

        Returns:
          The index after the shard's last local micro-batch, and the sums, as per-replica values.
        """
        micro_batches = self._layout.micro_batches

        def add_micro_batch(index: Any, *total: Any) -> tuple[Any, Any]:
            args = element, step, index, arguments, *total
            return self._run(_plus_one, args=(index,)), self._run(self._add_micro_batch, args=args)

        if micro_batches == 1:
            return add_micro_batch(index)
        _, index, total = tf.while_loop(
            lambda count, *_: count < micro_batches,
            lambda count, index, total: (count + 1, *add_micro_batch(index, total)),
            [tf.constant(0), index, self._run(self.zeros)],
            parallel_iterations=1,
        )
        return index, total

    def _add_micro_batch(
        self, element: Any, step: tf.Tensor, index: Any, arguments: Any, total: Any = None
    ) -> Tensors:
        """Returns the outputs of `compute` for a local micro-batch, plus `total` unless it is None.

        Called in replica context.

        Args:
          element: result of `feed.next`.
          step: index of the step, int64 [].
          index: index of the local micro-batch among those of the replica, an int or int64 [].
          arguments: further arguments of `compute`, as a tuple.
          total: sums to add to; None: the outputs are returned as they are.
        """
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        sums = self.compute(self.feed.batch(element, step, replica, index), *arguments)
        return sums if total is None else pairwise_sum(total, sums)


def _plus_one(index: tf.Tensor) -> tf.Tensor:
    return index + 1
