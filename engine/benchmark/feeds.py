"""Feeds for timing: one repeats a batch without input cost, one records the start of each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import Batch, Feed, OpenedSteps


class RepeatedBatchFeed:
    """Feeds the same global batch in every step; each replica keeps its rows in device memory.

    Args:
      feed: feed whose first batch is repeated.
      strategy: strategy whose replicas share the global batch.
      seed: seed of the random images and labels that replace the real ones; None: keep those.
      classes: number of classes of the random labels.
    """

    def __init__(
        self, feed: Feed, strategy: tf.distribute.Strategy, *, seed: int | None, classes: int
    ) -> None:
        self.examples, self.steps_per_epoch = feed.examples, feed.steps_per_epoch
        self.layout = feed.layout
        random = None if seed is None else np.random.default_rng(seed)

        @tf.function(autograph=False)
        def first(given: Any) -> Any:
            element, step = feed.next(given), tf.constant(0, tf.int64)

            def local_micro_batches() -> Batch:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                made = [
                    _finite(feed.batch(element, step, replica, i))
                    for i in range(self.layout.local_micro_batches)
                ]
                return Batch(*(tf.stack(parts) for parts in zip(*made, strict=True)))

            return strategy.run(local_micro_batches)

        held = Batch(*first(feed.open(0, 1).given))
        feed.close()
        if random is not None:
            images, targets = (
                strategy.experimental_local_results(part)[0] for part in (held.inputs, held.targets)
            )
            values = random.integers(0, 256, images.shape)
            labels = random.integers(0, classes, targets.shape)
            held = held._replace(
                inputs=_everywhere(strategy, values.astype(images.dtype.as_numpy_dtype)),
                targets=_everywhere(strategy, labels.astype(np.int32)),
            )
        self._held = held

    def open(self, step: int, steps: int) -> OpenedSteps:
        """Returns a placeholder, because the batch is already in memory."""
        return OpenedSteps(steps, tf.constant(0))

    def next(self, given: Any) -> Batch:
        """Returns the micro-batches of every replica."""
        return self._held

    def batch(self, element: Batch, step: Any, replica: Any, micro_batch: Any = 0) -> Batch:
        """Returns one micro-batch, the same in every step."""
        return Batch(
            *(
                part[0] if self.layout.local_micro_batches == 1 else part[micro_batch]
                for part in element
            )
        )

    def close(self) -> None:
        """Does nothing."""


class TimedFeed:
    """Wraps a feed and records when each step begins.

    Args:
      feed: feed of the batches.
      max_steps: maximum number of steps that can be recorded.
    """

    def __init__(self, feed: Feed, max_steps: int) -> None:
        self.examples, self.steps_per_epoch = feed.examples, feed.steps_per_epoch
        self.layout, self._feed = feed.layout, feed
        self.batch, self.open, self.close = feed.batch, feed.open, feed.close
        with tf.device("CPU:0"):
            self._stamps = tf.Variable(tf.zeros([max_steps], tf.float64), trainable=False)
            self._count = tf.Variable(0, trainable=False)

    def next(self, given: Any) -> Any:
        """Returns the next element of `feed`, and records the time."""
        with tf.device("CPU:0"):
            place = self._count.assign_add(1) - 1
            self._stamps.scatter_nd_update([[place]], [tf.timestamp()])
        return self._feed.next(given)

    def read(self) -> np.ndarray:
        """Returns the seconds between the starts of consecutive steps, float64 [steps - 1]."""
        return np.diff(self._stamps.numpy()[: int(self._count)])


def _finite(batch: Batch) -> Batch:
    """Replaces non-finite inputs by 0, because a non-finite step ends the call of the graph."""
    if not batch.inputs.dtype.is_floating:
        return batch
    zeros = tf.zeros_like(batch.inputs)
    return batch._replace(inputs=tf.where(tf.math.is_finite(batch.inputs), batch.inputs, zeros))


def _everywhere(strategy: tf.distribute.Strategy, value: np.ndarray) -> Any:
    """Returns a copy of a value on each replica's device."""
    if strategy.num_replicas_in_sync == 1:
        return tf.constant(value)
    return strategy.experimental_distribute_values_from_function(lambda _: tf.constant(value))
