"""Orders made ahead are the orders."""

from __future__ import annotations

import threading

import numpy as np

from pipelines.ahead import Orders
from pipelines.plan import Layout, Plan


def test_they_are_the_plans_in_whatever_order_they_are_asked_for():
    plan = Plan(examples=50, global_batch_size=8, layout=Layout(), seed=3)
    orders = Orders(plan)
    for epoch in (0, 1, 2, 2, 5, 6, 1, 0):
        assert np.array_equal(orders.of(epoch), plan.order(epoch))
    orders.close()


def test_nothing_goes_on_behind_its_end():
    before = threading.active_count()
    orders = Orders(Plan(examples=50, global_batch_size=8, layout=Layout(), seed=3))
    orders.of(0)
    orders.close()
    orders.close()
    assert threading.active_count() == before
