"""Prefetching the example orders of epochs."""

from __future__ import annotations

import threading

import numpy as np

from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import OrderPrefetch


def test_prefetched_orders_match_plan():
    """Prefetched orders equal the plan's for any sequence of epochs."""
    plan = BatchPlan(examples=50, global_batch_size=8, layout=BatchLayout(), seed=3)
    orders = OrderPrefetch(plan)
    for epoch in (0, 1, 2, 2, 5, 6, 1, 0):
        assert np.array_equal(orders.of(epoch), plan.order(epoch))
    orders.close()


def test_close_ends_thread():
    before = threading.active_count()
    orders = OrderPrefetch(
        BatchPlan(examples=50, global_batch_size=8, layout=BatchLayout(), seed=3)
    )
    orders.of(0)
    orders.close()
    orders.close()
    assert threading.active_count() == before
