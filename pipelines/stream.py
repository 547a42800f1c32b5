"""The stream feed: examples read and decoded by tf.data while the loop runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.decode import decode_batch
from pipelines.plan import Batch, Plan
from pipelines.records import RecordReader
from pipelines.source import Records, Source


class Stream:
    """Examples read and decoded by tf.data while the loop runs.

    Args:
      source: how an example is decoded.
      records: which examples.
      plan: which of them a step sees.
      strategy: whose replicas are fed.
    """

    def __init__(
        self, source: Source, records: Records, plan: Plan, strategy: tf.distribute.Strategy
    ) -> None:
        self.examples, self.steps_per_epoch = plan.examples, plan.steps_per_epoch
        self._plan, self._strategy = plan, strategy
        self._reader = RecordReader(records.ranges)
        self._source = source
        self._iterator: Any = None
        self._at = -1

    def open(self, step: int, steps: int) -> Any:
        """An iterator that stands at `step`; the running one if it does, else a new one."""
        if self._iterator is None or self._at != step:
            if self._strategy.num_replicas_in_sync == 1:
                self._iterator = iter(self._dataset(step))
            else:
                self._iterator = iter(
                    self._strategy.distribute_datasets_from_function(lambda _: self._dataset(step))
                )
        self._at = step + steps
        return self._iterator

    def _dataset(self, step: int) -> tf.data.Dataset:
        """Every replica's rows of `step`, then of the next step, without an end."""
        plan = self._plan
        arange = np.arange(plan.rows)

        def read(turn: np.int64) -> np.ndarray:
            at, replica = divmod(int(turn), plan.replicas)
            _, places, _ = plan.places(at, replica, arange)
            chosen = plan.order(at // plan.steps_per_epoch)[np.minimum(places, plan.examples - 1)]
            return self._reader.read(chosen)

        def decode(turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            serialized = tf.numpy_function(read, [turn], tf.string, stateful=False)
            return decode_batch(self._source, tf.ensure_shape(serialized, [plan.rows]))

        # A whole portion is decoded by one thread, portions side by side: half the cost of
        # mapping example by example and batching after.
        return (
            tf.data.Dataset.counter(step * plan.replicas, 1)
            .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .prefetch(tf.data.AUTOTUNE)
        )

    def next(self, opened: Any) -> Any:
        """The next portion of every replica."""
        return next(opened)

    def batch(self, element: Any, step: tf.Tensor, replica: tf.Tensor | int) -> Batch:
        """The portion with its mask."""
        images, labels = element
        return self._plan.masked(images, labels, step, replica)
