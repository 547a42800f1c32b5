"""A global batch in pieces: what a device computes in turn, it adds up in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.reduction import Tensors
from pipelines import Feed

Contribute = Callable[..., Tensors]  # (Batch, *arguments) -> what a piece contributes, float32


class Pieces:
    """Computes a global batch piece by piece, and sums what they contribute.

    With virtual shards each shard has sums of its own, micro-batches added in their order, and
    shards are added in one tree: the same additions whatever the number of replicas.

    Args:
      strategy: over whose replicas.
      feed: of the batches.
      zeros: what nothing contributes: the tensors' shapes; called in replica context.
      contribute: what a piece contributes; called in replica context.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        feed: Feed,
        zeros: Callable[[], Tensors],
        contribute: Contribute,
    ) -> None:
        self._strategy, self._feed = strategy, feed
        self._zeros, self._contribute = zeros, contribute
        self._layout = feed.layout

    def total(self, element: Any, step: tf.Tensor, *arguments: Any) -> Any:
        """Each replica's contribution to the global batch of `step`; in the graph.

        Args:
          element: of the feed.
          step: int64 [].
          *arguments: for `contribute`, after the batch.
        """
        run = self._strategy.run
        if self._layout.pieces == 1:
            return run(self._first, args=(element, step, arguments))

        def one_more(piece: tf.Tensor, total: Any) -> tuple[tf.Tensor, Any]:
            return piece + 1, run(self._next, args=(element, step, piece, total, arguments))

        nothing = tf.constant(0, tf.int64), run(self._nothing)
        _, total = tf.while_loop(
            lambda piece, _: piece < self._layout.pieces, one_more, nothing, parallel_iterations=1
        )
        return total

    def _first(self, element: Any, step: tf.Tensor, arguments: Any) -> Tensors:
        found = self._contribute(self._feed.batch(element, step, _replica(), 0), *arguments)
        return [part[tf.newaxis] for part in found] if self._layout.shards else found

    def _next(
        self, element: Any, step: tf.Tensor, piece: tf.Tensor, total: Tensors, arguments: Any
    ) -> Tensors:
        found = self._contribute(self._feed.batch(element, step, _replica(), piece), *arguments)
        return [self._added(*pair, piece) for pair in zip(total, found, strict=True)]

    def _nothing(self) -> Tensors:
        if not self._layout.shards:
            return self._zeros()
        local = self._layout.local_shards
        return [tf.zeros([local, *part.shape], part.dtype) for part in self._zeros()]

    def _added(self, total: tf.Tensor, found: tf.Tensor, piece: tf.Tensor) -> tf.Tensor:
        if not self._layout.shards:
            return total + found
        shard = piece // self._layout.micro_batches
        return tf.tensor_scatter_nd_add(total, [[shard]], found[tf.newaxis])


def _replica() -> tf.Tensor:
    return tf.distribute.get_replica_context().replica_id_in_sync_group
