"""Tests that batches without padding train to the same bits, known beforehand or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.tracing import nodes
from pipelines import BatchLayout
from pipelines.feeds.batch_layout import BatchPlan
from tapeline import models
from tests.harness import CLASSES, pictures, training


def network() -> list[models.Layer]:
    """Returns layers with batch norms that a ReLU follows."""
    normed = [models.Convolution(4), models.BatchNorm(), models.Activation("relu")]
    again = [models.Convolution(4), models.BatchNorm(), models.Activation("relu")]
    return [*normed, *again, models.Flatten(), models.Dense(CLASSES)]


@given(
    examples=st.integers(1, 40),
    batch=st.integers(1, 24),
    replicas=st.sampled_from([1, 2, 4]),
    micro_batches=st.integers(1, 4),
    shards=st.sampled_from([0, 4]),
)
def test_plan_knows_padding(examples, batch, replicas, micro_batches, shards):
    layout = BatchLayout(replicas, micro_batches, shards)
    plan = BatchPlan(examples=examples, global_batch_size=batch, layout=layout, seed=0)
    padded = any(
        not plan.positions(step, replica, micro_batch, np.arange(plan.rows))[2].all()
        for step in range(plan.steps_per_epoch)
        for replica in range(replicas)
        for micro_batch in range(layout.local_micro_batches)
    )
    assert plan.has_padding == padded


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_same_bits_without_choice(precision, replicas):
    """The graph of one replica has fewer choices without padding; the bits are the same."""
    images, labels = pictures(24)
    trained, choices = [], []
    for has_padding in (False, True):
        run = training(
            images, labels, network=network, replicas=replicas, accumulate=2, precision=precision
        )
        assert not run.feed.has_padding
        run.feed.has_padding = has_padding
        run.loop = run.loop.with_feed(run.feed)
        choices.append(sum("If" in node.op for node in nodes(run.loop.graph())))
        trained.append(run.take(6).everywhere())
    assert trained[0] == trained[1]
    assert choices[0] < choices[1] if replicas == 1 else choices[0] == choices[1]


def test_padding_counts_if_ignored():
    """Training without a mask where batches have padding gives other weights: the tests see it."""
    images, labels = pictures(21)
    found = []
    for has_padding in (True, False):
        run = training(images, labels, network=network)
        assert run.feed.has_padding
        run.feed.has_padding = has_padding
        run.loop = run.loop.with_feed(run.feed)
        found.append(run.take(6).everywhere())
    assert found[0] != found[1]
