"""A global batch in pieces: what a device computes in turn, it adds up in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.numerics.reduction import Tensors
from pipelines import Feed

Contribute = Callable[..., Tensors]  # (Batch, *arguments) -> what a piece contributes, float32


class Pieces:
    """Computes a global batch piece by piece, and sums what they contribute.

    A shard's micro-batches are added one after the other. The shards of a device are then added as
    neighbours, and neighbouring sums, in one binary tree: the same additions whatever the number
    of replicas, and no more sums at a time than the tree has levels.

    Args:
      strategy: over whose replicas.
      feed: of the batches.
      zeros: what nothing contributes; called in replica context.
      contribute: what a piece contributes; called in replica context.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        feed: Feed,
        zeros: Callable[[], Tensors],
        contribute: Contribute,
    ) -> None:
        self._run, self._feed, self._layout = strategy.run, feed, feed.layout
        self._zeros, self._contribute = zeros, contribute
        self._levels = self._layout.local_shards.bit_length() - 1

    def total(self, element: Any, step: tf.Tensor, *arguments: Any) -> Any:
        """Each replica's contribution to the global batch of `step`; in the graph.

        Args:
          element: of the feed.
          step: int64 [].
          *arguments: for `contribute`, after the batch.
        """
        if not self._levels:
            return self._of_shard(0, element, step, arguments)

        def one_more(shard: tf.Tensor, sums: Any) -> tuple[tf.Tensor, Any]:
            found = self._of_shard(shard, element, step, arguments)
            return shard + 1, self._run(self._carried, args=(sums, found, shard))

        # sums[level] is of 2^level neighbours, while it waits for those behind them.
        nothing = self._run(lambda: [self._zeros() for _ in range(self._levels + 1)])
        _, sums = tf.while_loop(
            lambda shard, _: shard < self._layout.local_shards,
            one_more,
            [tf.constant(0), nothing],
            parallel_iterations=1,
        )
        return sums[self._levels]

    def _carried(self, sums: list[Tensors], found: Tensors, shard: tf.Tensor) -> list[Tensors]:
        """Adds one more shard, as a binary counter adds 1: full levels go up as one sum."""

        def added_to(level: int) -> list[Tensors]:
            carry = found
            for below in range(level):
                carry = _plus(sums[below], carry)
            return [*sums[:level], carry, *sums[level + 1 :]]

        full = tf.bitwise.bitwise_and(shard + 1, -(shard + 1))  # 2 ^ levels that are full
        level = tf.reduce_sum(tf.cast(full > 2 ** tf.range(self._levels), tf.int32))
        return tf.switch_case(level, [lambda at=at: added_to(at) for at in range(self._levels + 1)])

    def _of_shard(self, shard: Any, element: Any, step: tf.Tensor, arguments: Any) -> Any:
        """The sum over a shard's micro-batches."""
        micro_batches = self._layout.micro_batches
        first = shard * micro_batches
        if micro_batches == 1:
            return self._run(self._of_piece, args=(element, step, first, arguments))

        def one_more(micro_batch: tf.Tensor, total: Any) -> tuple[tf.Tensor, Any]:
            given = element, step, first + micro_batch, arguments, total
            return micro_batch + 1, self._run(self._and_piece, args=given)

        _, total = tf.while_loop(
            lambda micro_batch, _: micro_batch < micro_batches,
            one_more,
            [tf.constant(0), self._run(self._zeros)],
            parallel_iterations=1,
        )
        return total

    def _of_piece(self, element: Any, step: tf.Tensor, piece: Any, arguments: Any) -> Tensors:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return self._contribute(self._feed.batch(element, step, replica, piece), *arguments)

    def _and_piece(
        self, element: Any, step: tf.Tensor, piece: Any, arguments: Any, total: Tensors
    ) -> Tensors:
        found = self._of_piece(element, step, piece, arguments)
        return _plus(total, found)


def _plus(one: Tensors, other: Tensors) -> Tensors:
    """Sums, each an operation of its own.

    TensorFlow's optimizer makes one sum of several numbers of a sum of sums, in another order;
    what stands between two sums here does nothing else but keep it from that.
    """
    return [tf.ensure_shape(a + b, a.shape) for a, b in zip(one, other, strict=True)]
