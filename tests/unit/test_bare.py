"""The benchmarks' hand-written loop matches the engine within rounding.

Only then are the speeds comparable. The tolerance is that of tests/rounding.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from tensorflow.python.framework import config as determinism

from benchmarks.bare import MODELS, Bare
from benchmarks.workloads import RATE, SEED, WORKLOADS
from engine.tasks.classification import Classification
from engine.verify.bounds import metric_bound
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tapeline import models
from tests import rounding
from tests.harness import put_together

STEPS = 5
EPOCH = 3  # steps


WAYS = [(workload, "off") for workload in WORKLOADS.values()] + [
    (workload, "loop") for workload in WORKLOADS.values() if workload.network == "dense"
]


@pytest.fixture
def not_asked_to_be_deterministic():
    """Disables op determinism, with which TensorFlow's loss op is slower on a CPU."""
    determinism.disable_op_determinism()
    yield
    determinism.enable_op_determinism()


@pytest.mark.parametrize(("workload", "jit"), WAYS, ids=lambda each: getattr(each, "name", each))
def test_matches_engine(workload, jit, not_asked_to_be_deterministic):
    random = np.random.default_rng(0)
    count = EPOCH * workload.batch
    images = random.integers(0, 256, (count, 28, 28, 1), np.uint8)
    labels = random.integers(0, 10, count).astype(np.int32)
    bare = Bare(workload, images, labels, jit == "loop")
    path = [0.0] * len(bare.weights)
    for _ in range(STEPS):
        before = [weight.numpy() for weight in bare.weights]
        bare.take(1)
        for place, (weight, old) in enumerate(zip(bare.weights, before, strict=True)):
            path[place] += float(np.linalg.norm(weight.numpy() - old))

    plan = BatchPlan(
        examples=count, global_batch_size=workload.batch, layout=BatchLayout(), seed=SEED
    )
    engine = put_together(
        lambda: models.build(
            MODELS[workload.network],
            input_shape=(28, 28, 1),
            output_shape=(10,),
            seed=SEED,
            hidden=workload.hidden,
        ),
        lambda strategy: InMemoryFeed(images, labels, plan, strategy),
        Classification(),
        layout=BatchLayout(),
        seed=SEED,
        optimizer="adam",
        rule={"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
        learning_rate=RATE,
        precision="mixed_bfloat16" if workload.bfloat16 else "float32",
        jit=jit,
    ).take(STEPS)
    error = rounding.of_sums(*rounding.lengths(engine.state.model, workload.batch))
    if workload.bfloat16:
        # The rounding of a layer dominates, and over several steps the weights, which differ by up
        # to their bound, double the error of a gradient: 8 u, see `metric_bound`.
        error = metric_bound("mixed_bfloat16")
    if workload.network == "convolutional" or workload.hidden:
        error = rounding.of_switches(error)
    optimizer = engine.state.optimizer
    for place, (weight, mean, square) in enumerate(
        zip(bare.weights, bare._means, bare._squares, strict=True)
    ):
        # Means of gradients have the error of the gradients, mean squares twice that.
        for ours, theirs, times in (
            (mean.numpy(), optimizer.means[place].numpy(), 1),
            (square.numpy(), optimizer.squares[place].numpy(), 2),
        ):
            assert np.linalg.norm(ours - theirs) <= times * error * np.linalg.norm(ours)
        value = weight.numpy()
        moves = rounding.of_moves(error, "adam", value.shape)
        length = float(np.linalg.norm(value))
        allowed = rounding.of_weights(moves, path[place], length, STEPS)
        assert np.linalg.norm(value - engine.weights()[place]) <= allowed
