"""The order of the next epoch, made while this one is trained on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipelines.plan import Plan


class Orders:
    """Orders of epochs, each made once where they are asked for one after the other.

    Args:
      plan: whose.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pool: ThreadPoolExecutor | None = None
        self._made: dict[int, Future[np.ndarray]] = {}

    def of(self, epoch: int) -> np.ndarray:
        """The order of an epoch, int32 [n]; starts on that of the next one."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="order")
        made, self._made = self._made, {}
        order = made[epoch].result() if epoch in made else self._plan.order(epoch)
        self._made[epoch + 1] = self._pool.submit(self._plan.order, epoch + 1)
        return order

    def close(self) -> None:
        """Ends the thread."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._made = {}
