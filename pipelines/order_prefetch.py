"""Prefetches the order of the next epoch while the current epoch is in progress."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipelines.batch_layout import BatchPlan


class OrderPrefetch:
    """Computes the orders of epochs; that of the next epoch in a background thread.

    Each order is computed only once if the epochs are requested in sequence.

    Args:
      plan: plan that computes an order.
    """

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan
        self._pool: ThreadPoolExecutor | None = None
        self._made: dict[int, Future[np.ndarray]] = {}

    def of(self, epoch: int) -> np.ndarray:
        """Returns the order of an epoch, int32 [n], and starts computing that of the next one."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="order")
        made, self._made = self._made, {}
        order = made[epoch].result() if epoch in made else self._plan.order(epoch)
        self._made[epoch + 1] = self._pool.submit(self._plan.order, epoch + 1)
        return order

    def close(self) -> None:
        """Stops the background thread and discards its result."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._made = {}
