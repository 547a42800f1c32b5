"""The in-memory feed: gathers batches in the graph from decoded examples on every device."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.batch_layout import Batch, BatchPlan, OpenedSteps
from pipelines.replicas import per_replica_values


class OrderPrefetch:
    """Computes the orders of epochs; that of the next epoch in a background thread."""

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan
        self._pool: ThreadPoolExecutor | None = None
        self._prefetched: dict[int, Future[np.ndarray]] = {}

    def of(self, epoch: int) -> np.ndarray:
        """Returns the order of an epoch, int32 [n], and starts computing that of the next one."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="order")
        prefetched = self._prefetched.get(epoch)
        order = prefetched.result() if prefetched else self._plan.order(epoch)
        self._prefetched = {epoch + 1: self._pool.submit(self._plan.order, epoch + 1)}
        return order

    def close(self) -> None:
        """Stops the background thread and discards its result."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self._prefetched = None, {}


class InMemoryFeed:
    """Holds all decoded examples in memory on every device; gathers batches in the graph."""

    def __init__(
        self,
        images: np.ndarray,  # uint8 or float32 [n, H, W, C]
        labels: np.ndarray,  # int32 [n]
        plan: BatchPlan,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self.examples, self.steps_per_epoch = plan.examples, plan.steps_per_epoch
        self._plan, self.layout = plan, plan.layout
        self._orders = OrderPrefetch(plan)
        self._opened: tuple[int, tf.Tensor] | None = None
        self._data = per_replica_values(
            strategy, lambda: (tf.constant(images), tf.constant(labels))
        )

    def open(self, step: int, steps: int) -> OpenedSteps:
        """Returns all `steps` steps, with their epoch's order, int32 [n], as the graph's input."""
        epoch = step // self.steps_per_epoch
        if self._opened is None or self._opened[0] != epoch:
            self._opened = epoch, tf.constant(self._orders.of(epoch))
        return OpenedSteps(steps, self._opened[1])

    def close(self) -> None:
        """Stops prefetching the order of the next epoch."""
        self._orders.close()

    def next(self, given: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """Returns (order of the epoch, per-replica (images, labels) of all examples)."""
        return given, self._data

    def batch(self, element: Any, step: tf.Tensor, replica: Any, micro_batch: Any = 0) -> Batch:
        """Gathers the examples of a local micro-batch."""
        in_order, (images, labels) = element
        where = tf.cast(replica, tf.int64), tf.cast(micro_batch, tf.int64)
        arange = tf.range(self._plan.fetched, dtype=tf.int64)
        _, positions, _ = self._plan.positions(step, *where, arange)
        indices = tf.gather(in_order, positions % self.examples)
        images, labels = tf.gather(images, indices), tf.gather(labels, indices)
        return self._plan.masked(images, labels, step, *where)
