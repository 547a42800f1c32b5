"""Orders of data sets that are too large to sort: permutations computed position by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import order


@pytest.fixture(autouse=True)
def _nothing_is_sorted(monkeypatch):
    monkeypatch.setattr(order, "_SORTED", 0)


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 2**40))
@settings(max_examples=80, derandomize=True)
def test_order_is_permutation(n, seed, epoch):
    found = order.permutation(seed, epoch, n)
    assert found.dtype == np.int32
    assert np.array_equal(np.sort(found), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 77, 2**20 + 1, 2**31 - 1])
def test_looks_up_single_places(n):
    places = np.random.default_rng(n).integers(0, n, 50)
    found = order.permutation_at(3, 4, n, places)
    assert found.dtype == np.int32 and found.min() >= 0 and found.max() < n
    for place, example in zip(places, found, strict=True):
        assert order.permutation_at(3, 4, n, np.array([place])) == example
    if n < 2**22:
        assert np.array_equal(order.permutation(3, 4, n)[places], found)


def test_orders_are_uncorrelated():
    n, orders = 50_000, []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)):
        orders.append(order.permutation(seed, epoch, n))
    for i, one in enumerate(orders):
        # As in a random order: about 1 example stays in place, and about 1 pair adjacent.
        assert np.sum(one == np.arange(n)) < 10
        assert np.sum(np.diff(one) == 1) < 10
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.02
        for other in orders[:i]:
            assert np.sum(one == other) < 10
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.02


def test_places_are_uniform():
    n, epochs = 12, 6000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), order.permutation(7, epoch, n)] += 1
    expected = epochs / n
    chi_squared = np.sum((counts - expected) ** 2 / expected)
    # (n - 1)^2 = 121 degrees of freedom: beyond 190 in one of 15,000 cases.
    assert chi_squared < 190
