"""Tests of law L7: a step on N replicas is equivalent to a step on one replica."""

from __future__ import annotations

import pytest

from tapeline import models
from tests.choices import choices
from tests.harness import (
    CLASSES,
    NETWORKS,
    assert_rounding_apart,
    pictures,
    relative_difference,
    training,
)


def network_name(choice) -> str:
    return "norm" if choice is None else getattr(choice, "__name__", str(choice))


def joined(choice) -> str:
    return "-".join(choice) if isinstance(choice, tuple) else str(choice)


# For smooth networks the bounds are narrow for every update rule.
CASES = [(optimizer, "smooth") for optimizer in ("sgd", "momentum", "adam", "lamb", "muon")]


@pytest.mark.parametrize(
    ("of", "replicas", "examples"),
    choices([*CASES, ("adam", "switches")], [2, 4], [40, 37], name=joined),
)
def test_replicas_match_one_device(of, replicas, examples):
    """Training on N replicas with dropout and batch norm matches one device within rounding."""
    optimizer, network = of
    images, labels = pictures(examples)
    layers, switches = NETWORKS[network]
    options = {"batch": 8, "optimizer": optimizer, "learning_rate": 0.001, "network": layers}
    alone, many = (training(images, labels, replicas=n, **options) for n in (1, replicas))
    path = alone.take_measured(20)
    assert_rounding_apart(
        alone, many.take(20), path, optimizer=optimizer, batch=8, switches=switches
    )
    ours, theirs = alone.state.sums.numpy(), many.state.sums.numpy()
    assert ours[2] == theirs[2]  # examples
    if not switches:
        assert ours[1] == theirs[1]  # no two logits are that close
        # 20 steps; a loss sums 8 examples, a logit 144 terms.
        assert ours[0] == pytest.approx(theirs[0], rel=1e-5)


def without_norm() -> list[models.Layer]:
    """Returns a network without batch norm, which would use other statistics for each shard."""
    return [models.Flatten(), models.Dropout(0.5), models.Dense(CLASSES)]


@pytest.mark.parametrize(
    ("accumulate", "network"), choices([1, 2], [None, without_norm], name=network_name)
)
def test_shards_are_bitwise(accumulate, network):
    """With four shards, training on 1, 2 and 4 replicas is bitwise equal."""
    # Batches of 16 and one of 5: a shard has 4 rows, 2 or none.
    options = {"batch": 16, "accumulate": accumulate, "learning_rate": 0.001, "ema": 0.9}
    options |= {"network": network} if network else {}

    def trained(**layout):
        return training(*pictures(37), **options, **layout).take(9)

    one, two, four = (trained(shards=4, replicas=replicas) for replicas in (1, 2, 4))
    for many in (two, four):
        for ours, theirs in zip(one.state.variables, many.state.variables, strict=True):
            assert ours.numpy().tobytes() == theirs.numpy().tobytes(), ours.name
    if network:
        assert relative_difference(trained().weights(), one.weights()) < 1e-5
