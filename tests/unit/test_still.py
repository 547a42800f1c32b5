"""Feeds of a benchmark: one batch that lies there, and a clock beside the steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tensorflow.python.framework import config as determinism

from engine.benchmark.feeds import Stamped, Still
from engine.verify.trajectory import everything_in
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
def test_the_first_step_on_a_still_batch_is_the_first_step(tmp_path, options):
    real, held = made(tmp_path, options), made(tmp_path, options)
    still = Still(held.feeds.training, held.strategy, seed=None, classes=10)
    held = dataclasses.replace(held, loop=held.loop.fed(still))
    real.loop.run(1)
    held.loop.run(1)
    assert everything_in(real) == everything_in(held)
    held.loop.run(4)  # on the same examples: no epoch ends
    assert int(held.state.step) == 5
    for parts in (real, held):
        parts.close()


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_a_batch_of_random_numbers_has_the_form_of_a_real_one(tmp_path, options):
    parts = made(tmp_path, options)
    still = Still(parts.feeds.training, parts.strategy, seed=0, classes=10)
    loop = parts.loop.fed(still)
    loop.run(3)
    assert parts.state.sums.numpy()[2] == 3 * 18
    again = Still(parts.feeds.training, parts.strategy, seed=0, classes=10)
    copies = [
        [image.numpy() for image in parts.strategy.experimental_local_results(batch.inputs)]
        for batch in (still.next(0), again.next(0))
    ]
    for one, other in zip(*copies, strict=True):
        assert one.dtype == np.uint8 and np.array_equal(one, other)
        assert 60 < one.std() < 90  # of whole numbers up to 255
    parts.close()


@pytest.mark.parametrize("options", [{}, {"replicas": 2}, {"accumulate": 4}], ids=str)
def test_a_clock_beside_the_steps_sees_each_once(tmp_path, options):
    parts = made(tmp_path, options)
    stamped = Stamped(parts.feeds.training, 9)
    loop = parts.loop.fed(stamped)
    determinism.disable_op_determinism()
    try:
        loop.run(1)
        loop.run(4)
    finally:
        determinism.enable_op_determinism()
    seconds = stamped.read()
    assert seconds.shape == (4,) and (seconds > 0).all()
