"""Orders of data sets that are too large to sort: permutations computed position by position."""

from __future__ import annotations

import hashlib

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


@pytest.mark.parametrize("n", [2**31, 2**31 + 1, 3 * 10**9, 2**40 + 12345])
def test_beyond_int32(n):
    """Indices are int64 where int32 cannot hold them; the largest index is reached."""
    places = np.random.default_rng(n).integers(0, n, 20_000)
    found = order.permutation_at(3, 4, n, places)
    assert found.dtype == (np.int32 if n == 2**31 else np.int64)
    assert found.min() >= 0 and n * 0.99 < found.max() < n
    assert len(np.unique(found)) == len(np.unique(places))
    assert abs(found.mean() / n - 0.5) < 0.02


# SHA-256 of the indices at 1,000 places, of version 0.4.0 and later: runs resume with these orders.
AS_EVER = {
    1797: "eb4a67a4d6ef5d4a",
    2**20: "09b09972aad95ea2",
    2**20 + 1: "c32b2d49b9483987",
    15 * 10**6: "12c884b8d55f67e5",
    2**31 - 1: "03a3a143a838858d",
    2**31: "a719032735487bf3",
}


@pytest.mark.parametrize("n", AS_EVER)
def test_orders_are_as_ever(n, monkeypatch):
    monkeypatch.setattr(order, "_SORTED", 1 << 20)
    found = order.permutation_at(3, 4, n, np.linspace(0, n - 1, 1000).astype(np.int64))
    digest = hashlib.sha256(found.astype("<i4").tobytes()).hexdigest()
    assert found.dtype == np.int32 and digest.startswith(AS_EVER[n])


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
