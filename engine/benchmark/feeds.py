"""Feeds that show what the time goes to: one that costs nothing, one that notes the time."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import Batch, Feed, Opened


class Still:
    """The same global batch again and again, lying where it is needed.

    Args:
      feed: whose first batch it is.
      strategy: over whose replicas.
      seed: of images and labels that take the places of the real ones; None: the real ones.
      classes: that those labels are of.
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

            def pieces() -> Batch:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                made = [
                    _finite(feed.batch(element, step, replica, i))
                    for i in range(self.layout.pieces)
                ]
                return Batch(*(tf.stack(parts) for parts in zip(*made, strict=True)))

            return strategy.run(pieces)

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

    def open(self, step: int, steps: int) -> Opened:
        """Nothing to prepare."""
        return Opened(steps, tf.constant(0))

    def next(self, given: Any) -> Batch:
        """The pieces of every replica."""
        return self._held

    def batch(self, element: Batch, step: Any, replica: Any, piece: Any = 0) -> Batch:
        """One of them, whatever the step."""
        return Batch(*(part[0] if self.layout.pieces == 1 else part[piece] for part in element))

    def close(self) -> None:
        """Nothing to stop."""


class Stamped:
    """A feed that notes when each step begins.

    Args:
      feed: which feeds.
      most: steps of which it can be told.
    """

    def __init__(self, feed: Feed, most: int) -> None:
        self.examples, self.steps_per_epoch = feed.examples, feed.steps_per_epoch
        self.layout, self._feed = feed.layout, feed
        self.batch, self.open, self.close = feed.batch, feed.open, feed.close
        with tf.device("CPU:0"):
            self._stamps = tf.Variable(tf.zeros([most], tf.float64), trainable=False)
            self._count = tf.Variable(0, trainable=False)

    def next(self, given: Any) -> Any:
        """What `feed` gives, and a note of the time."""
        with tf.device("CPU:0"):
            place = self._count.assign_add(1) - 1
            self._stamps.scatter_nd_update([[place]], [tf.timestamp()])
        return self._feed.next(given)

    def read(self) -> np.ndarray:
        """Seconds from step to step, float64 [steps - 1]."""
        return np.diff(self._stamps.numpy()[: int(self._count)])


def _finite(batch: Batch) -> Batch:
    """The same with 0 for what is not finite, which would end every call of the graph."""
    if not batch.inputs.dtype.is_floating:
        return batch
    zeros = tf.zeros_like(batch.inputs)
    return batch._replace(inputs=tf.where(tf.math.is_finite(batch.inputs), batch.inputs, zeros))


def _everywhere(strategy: tf.distribute.Strategy, value: np.ndarray) -> Any:
    """A copy on each replica's device."""
    if strategy.num_replicas_in_sync == 1:
        return tf.constant(value)
    return strategy.experimental_distribute_values_from_function(lambda _: tf.constant(value))
