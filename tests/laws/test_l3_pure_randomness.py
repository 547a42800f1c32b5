"""Tests of law L3: shuffling and dropout depend only on the seed, the step and the position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tasks.classification import Classification
from pipelines import BatchLayout, InMemoryFeed, permutation
from pipelines.feeds.batch_layout import BatchPlan
from tapeline import models
from tests.harness import (
    NETWORKS,
    assert_rounding_apart,
    norm_network,
    pictures,
    put_together,
    same_bits,
    training,
)


@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6), n=st.integers(0, 300))
@settings(max_examples=50, derandomize=True)
def test_permutation_is_complete(seed, epoch, n):
    """`permutation` returns each index from 0 to n - 1 once."""
    assert sorted(permutation(seed, epoch, n)) == list(range(n))


@pytest.mark.parametrize("seed", [0, 1, 2, 12345])
def test_permutations_are_uncorrelated(seed):
    """Permutations of different epochs and seeds are uncorrelated."""
    n = 60_000
    orders = [permutation(seed, epoch, n) for epoch in range(4)]
    orders += [permutation(seed + 1, epoch, n) for epoch in range(2)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            # The correlation of independent orders has a standard deviation of 1 / sqrt(n) = 0.004.
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
        assert abs(np.corrcoef(one, np.arange(n))[0, 1]) < 0.02


def test_permutation_golden_values():
    """`permutation` returns the recorded orders of two pairs of seed and epoch."""
    assert permutation(0, 0, 10).tolist() == GOLDEN[0]
    assert permutation(7, 3, 10).tolist() == GOLDEN[1]


GOLDEN = ([0, 8, 9, 3, 7, 5, 1, 2, 6, 4], [7, 1, 9, 6, 0, 4, 2, 8, 3, 5])


def test_seed_determines_bits():
    """Two trainings with one seed end with equal weights; another seed gives different weights."""
    images, labels = pictures(40)
    one, two = (training(images, labels, seed=5).take(12).weights() for _ in range(2))
    other = training(images, labels, seed=6).take(12).weights()
    assert same_bits(one, two)
    assert not same_bits(one, other)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("replicas", [2, 4])
def test_dropout_is_replica_independent(replicas, network):
    images, labels = pictures(40)
    layers, switches = NETWORKS[network]
    options = {"batch": 8, "learning_rate": 0.1, "optimizer": "sgd", "network": layers}
    alone, many = (training(images, labels, replicas=n, **options) for n in (1, replicas))
    path = alone.take_measured(1)
    assert_rounding_apart(alone, many.take(1), path, optimizer="sgd", batch=8, switches=switches)


def test_dropout_varies():
    """Dropout masks differ between steps and between seeds."""
    images, labels = pictures(8)
    plan = BatchPlan(examples=8, global_batch_size=8, layout=BatchLayout(), seed=None)

    def losses(seed):
        # One batch and constant weights: only dropout differs between steps.
        run = put_together(
            lambda: models.Sequential("network", norm_network(), images.shape[1:], 0),
            lambda strategy: InMemoryFeed(images, labels, plan, strategy),
            Classification(),
            layout=BatchLayout(),
            seed=seed,
            optimizer="sgd",
            learning_rate=1e-30,
        )
        sums = [run.take(1).state.sums.numpy()[0] for _ in range(5)]
        return np.diff([0.0, *sums]).tolist()

    one, same, other = losses(5), losses(5), losses(6)
    assert one == same
    assert len({*one, *other}) == 10
