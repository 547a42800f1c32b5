"""Feeds for timing: one repeats a batch without input cost, one records the start of each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import Batch, Feed, OpenedSteps, per_replica_values

_PIXELS = 256  # number of pixel values
_IMAGES_RANK = 5  # micro-batches, rows, height, width, channels


class RepeatedBatchFeed:
    """Feed that repeats the first global batch of another feed from device memory.

    Each replica keeps the rows that it computes. Inputs that are nan or infinite are replaced by 0.

    Args:
      feed: feed that gives the batch; closed afterwards.
      strategy: strategy whose replicas get the batch.
      seed: seed of random values that replace the real ones: integers in [0, 256) in images, in
        [0, classes) in targets; other inputs are shuffled values. None: the real values.
      classes: number of classes; 0: the targets are not class labels, and are shuffled values.
    """

    def __init__(
        self, feed: Feed, strategy: tf.distribute.Strategy, *, seed: int | None, classes: int
    ) -> None:
        self.examples, self.steps_per_epoch = feed.examples, feed.steps_per_epoch
        self.layout, self.has_padding = feed.layout, feed.has_padding

        @tf.function(autograph=False)
        def first_batch(given: Any) -> Any:
            element, step = feed.next(given), tf.constant(0, tf.int64)

            def local_micro_batches() -> Batch:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                micro_batches = [
                    _finite(feed.batch(element, step, replica, i))
                    for i in range(self.layout.local_micro_batches)
                ]
                return tf.nest.map_structure(lambda *parts: tf.stack(parts), *micro_batches)

            return strategy.run(local_micro_batches)

        batch = Batch(*first_batch(feed.open(0, 1).given))
        feed.close()
        if seed is not None:
            random = np.random.default_rng(seed)

            def randomized(leaf: Any, bound: int) -> Any:
                """Returns random integers in [0, bound), of the shape and dtype of `leaf`.

                If `bound` is 0, the result is the values of `leaf` in random order instead.
                """
                local = strategy.experimental_local_results(leaf)[0].numpy()
                values = random.integers(0, bound, local.shape) if bound else local.reshape(-1)
                if not bound:  # other values, such as of ids without an embedding, may be invalid
                    values = random.permutation(values).reshape(local.shape)
                values = values.astype(local.dtype)
                return per_replica_values(strategy, lambda: tf.constant(values))

            def pixels(leaf: Any) -> int:
                local = strategy.experimental_local_results(leaf)[0]
                return _PIXELS if len(local.shape) == _IMAGES_RANK else 0

            batch = batch._replace(
                inputs=tf.nest.map_structure(lambda x: randomized(x, pixels(x)), batch.inputs),
                targets=tf.nest.map_structure(lambda x: randomized(x, classes), batch.targets),
            )
        self._batch = batch

    def open(self, step: int, steps: int) -> OpenedSteps:
        """Returns `steps`, and a placeholder for the data, which is in memory already."""
        return OpenedSteps(steps, tf.constant(0))

    def next(self, given: Any) -> Batch:
        """Returns the micro-batches of all replicas, the same in every step."""
        return self._batch

    def batch(self, element: Batch, step: Any, replica: Any, micro_batch: Any = 0) -> Batch:
        """Returns one micro-batch of the current replica, the same in every step."""
        index = 0 if self.layout.local_micro_batches == 1 else micro_batch
        return tf.nest.map_structure(lambda part: part[index], element)

    def close(self) -> None:
        """Does nothing, because the feed has no open files or threads."""


class TimedFeed:
    """Feed wrapper that records when each step begins, for at most `max_steps` steps."""

    def __init__(self, feed: Feed, max_steps: int) -> None:
        self.examples, self.steps_per_epoch = feed.examples, feed.steps_per_epoch
        self.layout, self.has_padding, self._feed = feed.layout, feed.has_padding, feed
        self.batch, self.open, self.close = feed.batch, feed.open, feed.close
        with tf.device("CPU:0"):
            self._stamps = tf.Variable(tf.zeros([max_steps], tf.float64), trainable=False)
            self._count = tf.Variable(0, trainable=False)

    def next(self, given: Any) -> Any:
        """Records the time in the graph; returns the next element of the wrapped feed."""
        with tf.device("CPU:0"):
            index = self._count.assign_add(1) - 1
            self._stamps.scatter_nd_update([[index]], [tf.timestamp()])
        return self._feed.next(given)

    def read(self) -> np.ndarray:
        """Returns the seconds between the starts of consecutive steps, float64 [steps - 1]."""
        return np.diff(self._stamps.numpy()[: int(self._count)])


def _finite(batch: Batch) -> Batch:
    """Returns a batch with 0 in place of non-finite inputs, which would end the training loop."""

    def finite(leaf: tf.Tensor) -> tf.Tensor:
        if not leaf.dtype.is_floating:
            return leaf
        return tf.where(tf.math.is_finite(leaf), leaf, tf.zeros_like(leaf))

    return batch._replace(inputs=tf.nest.map_structure(finite, batch.inputs))
