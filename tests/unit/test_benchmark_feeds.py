"""Feeds of benchmarks: one repeats a batch, one records the start time of each step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tensorflow.python.framework import config as determinism

from engine.benchmark.feeds import RepeatedBatchFeed, TimedFeed
from engine.verify.trajectory import state_bytes
from tests.laws.product import assembled

WAYS = [
    {},
    {"feed": "stream"},
    {"accumulate": 4},
    {"replicas": 2, "shards": 4, "augment": "mixup:0.3"},
]


def made(tmp_path, options):
    return assembled(
        str(tmp_path), model="law_norm", train_split="train[:77]", global_batch_size=18, **options
    )


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_repeated_batch_first_step(tmp_path, options):
    """The first step on a repeated batch equals the first step of training."""
    real, held = made(tmp_path, options), made(tmp_path, options)
    still = RepeatedBatchFeed(held.feeds.training, held.strategy, seed=None, classes=10)
    held = dataclasses.replace(held, loop=held.loop.with_feed(still))
    real.loop.run(1)
    held.loop.run(1)
    assert state_bytes(real) == state_bytes(held)
    held.loop.run(4)  # the same examples: no epoch ends
    assert int(held.state.step) == 5
    for parts in (real, held):
        parts.close()


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_random_batch_form(tmp_path, options):
    """A batch of random numbers has the shape of a real batch, and is a function of the seed."""
    parts = made(tmp_path, options)
    still = RepeatedBatchFeed(parts.feeds.training, parts.strategy, seed=0, classes=10)
    loop = parts.loop.with_feed(still)
    loop.run(3)
    assert parts.state.sums.numpy()[2] == 3 * 18
    again = RepeatedBatchFeed(parts.feeds.training, parts.strategy, seed=0, classes=10)
    copies = [
        [image.numpy() for image in parts.strategy.experimental_local_results(batch.inputs)]
        for batch in (still.next(0), again.next(0))
    ]
    for one, other in zip(*copies, strict=True):
        assert one.dtype == np.uint8 and np.array_equal(one, other)
        assert 60 < one.std() < 90  # of integers up to 255
    parts.close()


@pytest.mark.parametrize("options", [{}, {"replicas": 2}, {"accumulate": 4}], ids=str)
def test_timed_feed_counts_steps(tmp_path, options):
    parts = made(tmp_path, options)
    stamped = TimedFeed(parts.feeds.training, 9)
    loop = parts.loop.with_feed(stamped)
    determinism.disable_op_determinism()
    try:
        loop.run(1)
        loop.run(4)
    finally:
        determinism.enable_op_determinism()
    seconds = stamped.read()
    assert seconds.shape == (4,) and (seconds > 0).all()
