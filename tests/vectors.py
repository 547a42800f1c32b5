"""A task with known gradients, for tests of the result of a step.

The loss of an example is its dot product with the weights. So the gradient is the example itself,
for any weights, and the engine's gradient is the mean of the examples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from engine.tasks.task import TaskOutput
from pipelines import Batch, BatchLayout, OpenedSteps


class Weights(tf.Module):
    """A model that consists of weights only."""

    def __init__(self, *values: Any) -> None:
        super().__init__(name="weights")
        self.parts = [tf.Variable(value, dtype=tf.float32) for value in values]


class Linear:
    """A task whose loss is the dot product of an example, a vector, with all weights."""

    metrics: dict[str, Any] = {}  # noqa: RUF012

    def __call__(self, model: Weights, batch: Batch, context: Any) -> TaskOutput:
        weights = tf.concat([tf.reshape(part, [-1]) for part in model.parts], 0)
        return TaskOutput(tf.reduce_sum(batch.inputs * weights, -1))


class Vectors:
    """A feed whose micro-batches have one example each.

    Args:
      vectors: examples, [steps, rows of a global batch, length]; an epoch has these steps.
      layout: division of a global batch into replicas, shards and micro-batches.
    """

    def __init__(self, vectors: Any, layout: BatchLayout) -> None:
        self._vectors = np.asarray(vectors, np.float32)
        self.steps_per_epoch, self._rows, _ = self._vectors.shape
        assert self._rows == layout.replicas * layout.local_micro_batches
        self.examples = self.steps_per_epoch * self._rows
        self.layout, self.has_padding = layout, False

    def open(self, step: int, steps: int) -> OpenedSteps:
        return OpenedSteps(steps, tf.constant(self._vectors))

    def next(self, given: tf.Tensor) -> tf.Tensor:
        return given

    def batch(self, element: tf.Tensor, step: tf.Tensor, replica: Any, micro_batch: Any) -> Batch:
        row = self.row(tf.cast(replica, tf.int64), tf.cast(micro_batch, tf.int64))
        at = step % self.steps_per_epoch
        return Batch(
            inputs=element[at, row][tf.newaxis],
            targets=tf.zeros([1], tf.int32),
            mask=tf.ones([1]),
            row=row,
            valid=tf.constant(float(self._rows)),
            epoch=step // self.steps_per_epoch,
            position=at * self._rows + row,
        )

    def row(self, replica: Any, micro_batch: Any) -> Any:
        """Returns the row in the global batch of the example of a replica's micro-batch."""
        layout = self.layout
        shard = replica * layout.local_shards + micro_batch // layout.micro_batches
        return micro_batch % layout.micro_batches * layout.all_shards + shard

    def close(self) -> None:
        """Does nothing, because the feed holds no resources."""
