"""The in-memory feed: gathers batches in the graph from decoded examples on every device."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import order
from pipelines.feeds import gatherable
from pipelines.feeds.batch_layout import Batch, BatchPlan, OpenedSteps
from pipelines.feeds.replicas import per_replica_values
from pipelines.nests import Nest


class OrderPrefetch:
    """Example orders of epochs, with the next epoch's order computed in a background thread."""

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan
        self._pool: ThreadPoolExecutor | None = None
        self._prefetched: dict[int, Future[np.ndarray]] = {}

    def of(self, epoch: int) -> np.ndarray:
        """Returns the example indices in an epoch's order, [n], and prefetches the next order."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="order")
        prefetched = self._prefetched.get(epoch)
        order = prefetched.result() if prefetched else self._plan.order(epoch)
        self._prefetched = {epoch + 1: self._pool.submit(self._plan.order, epoch + 1)}
        return order

    def close(self) -> None:
        """Waits for the background thread to end and discards the prefetched order."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self._prefetched = None, {}


class InMemoryFeed:
    """Feed that holds all decoded examples on every device and gathers batches in the graph."""

    def __init__(
        self,
        inputs: Nest,  # arrays [n, ...]
        targets: Nest,  # arrays [n, ...]
        plan: BatchPlan,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self.examples, self.steps_per_epoch = plan.examples, plan.steps_per_epoch
        self._plan, self.layout, self.has_padding = plan, plan.layout, plan.has_padding
        self._orders = OrderPrefetch(plan)
        self._opened: tuple[int, Any] | None = None
        self._strategy, self._for_gpu = strategy, gatherable.needed()
        self._specs = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), (inputs, targets)
        )
        leaves = tf.nest.flatten((inputs, targets))
        if plan.include_fixed:
            leaves.append(order.fixed(plan.seed or 0, np.arange(plan.examples)))
        if self._for_gpu:
            with tf.device("CPU:0"):
                leaves = [gatherable.gatherable(tf.constant(leaf)).numpy() for leaf in leaves]
        self._data = per_replica_values(strategy, lambda: tuple(map(tf.constant, leaves)))

    def open(self, step: int, steps: int) -> OpenedSteps:
        """Returns `steps` and the graph's input: the example order of the epoch, [n].

        The order is int32, or int64 above 2**31 examples. With a GPU it is int64, and each replica
        has one: int32 would be on the host.
        """
        epoch = step // self.steps_per_epoch
        if self._opened is None or self._opened[0] != epoch:
            order = self._orders.of(epoch)
            if self._for_gpu:
                self._opened = (
                    epoch,
                    per_replica_values(self._strategy, lambda: tf.constant(order, tf.int64)),
                )
            else:
                self._opened = epoch, tf.constant(order)
        return OpenedSteps(steps, self._opened[1])

    def close(self) -> None:
        """Stops prefetching the order of the next epoch."""
        self._orders.close()

    def next(self, given: Any) -> tuple[Any, Any]:
        """Returns the `element` of `batch`: (epoch's order, tensors of all examples by replica)."""
        return given, self._data

    def batch(self, element: Any, step: tf.Tensor, replica: Any, micro_batch: Any = 0) -> Batch:
        """Returns a local micro-batch of a step, gathered from the examples on the device."""
        in_order, data = element
        where = tf.cast(replica, tf.int64), tf.cast(micro_batch, tf.int64)
        arange = tf.range(self._plan.fetched, dtype=tf.int64)
        _, positions, _ = self._plan.positions(step, *where, arange)
        indices = tf.gather(in_order, positions % self.examples)
        specs = tf.nest.flatten(self._specs)
        rows = [
            gatherable.restored(tf.gather(leaf, indices), spec)
            for leaf, spec in zip(data, specs, strict=False)
        ]
        inputs, targets = tf.nest.pack_sequence_as(self._specs, rows)
        fixed = tf.gather(data[-1], indices) if self._plan.include_fixed else ()
        return self._plan.masked(inputs, targets, step, *where, fixed)
