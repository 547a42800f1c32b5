"""Losses whose gradients are known without computing them: what a step should do can be said.

The loss of an example is the sum of the products of its numbers with the weights. So its gradient
is the example itself, whatever the weights, and the engine's is the mean of the examples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from engine.task import Scores
from pipelines import Batch, Layout, Opened


class Weights(tf.Module):
    """Nothing but weights."""

    def __init__(self, *values: Any) -> None:
        super().__init__(name="weights")
        self.parts = [tf.Variable(value, dtype=tf.float32) for value in values]


class Linear:
    """The task: examples are vectors, as long as all weights together."""

    metrics: tuple[str, ...] = ()

    def __call__(self, model: Weights, batch: Batch, call: Any) -> Scores:
        weights = tf.concat([tf.reshape(part, [-1]) for part in model.parts], 0)
        return Scores(tf.reduce_sum(batch.inputs * weights, -1), ())


class Vectors:
    """A feed whose pieces are single examples, so that each replica and each piece of its has a
    gradient of its own.

    Args:
      vectors: [steps, pieces of all replicas, length]; after the last step comes the first again.
      layout: how a global batch is cut.
    """

    def __init__(self, vectors: Any, layout: Layout) -> None:
        self._vectors = np.asarray(vectors, np.float32)
        self.steps_per_epoch, self._rows, _ = self._vectors.shape
        assert self._rows == layout.replicas * layout.pieces
        self.examples = self.steps_per_epoch * self._rows
        self.layout = layout

    def open(self, step: int, steps: int) -> Opened:
        return Opened(steps, tf.constant(self._vectors))

    def next(self, given: tf.Tensor) -> tf.Tensor:
        return given

    def batch(self, element: tf.Tensor, step: tf.Tensor, replica: Any, piece: Any) -> Batch:
        row = self.row(tf.cast(replica, tf.int64), tf.cast(piece, tf.int64))
        at = step % self.steps_per_epoch
        return Batch(
            inputs=element[at, row][tf.newaxis],
            targets=tf.zeros([1], tf.int32),
            mask=tf.ones([1]),
            row=row,
            valid=tf.constant(float(self._rows)),
            epoch=step // self.steps_per_epoch,
            place=at * self._rows + row,
        )

    def row(self, replica: Any, piece: Any) -> Any:
        """The place in the global batch of a replica's piece: micro-batch by micro-batch."""
        layout = self.layout
        shard = replica * layout.local_shards + piece // layout.micro_batches
        return piece % layout.micro_batches * layout.all_shards + shard

    def close(self) -> None:
        """Nothing to stop."""
