"""A loop written by hand comes to the engine's bits: for speed the same work is compared."""

from __future__ import annotations

import numpy as np
import pytest
from tensorflow.python.framework import config as determinism

import models
from benchmarks.bare import MODELS, Bare
from benchmarks.workloads import RATE, SEED, WORKLOADS
from engine.task import Classification
from pipelines.plan import Layout, Plan
from pipelines.resident import Resident
from tests.harness import put_together, same_bits

STEPS = 5
EPOCH = 3  # steps of it


WAYS = [(workload, "off") for workload in WORKLOADS.values()] + [
    (workload, "loop") for workload in WORKLOADS.values() if workload.network == "dense"
]


@pytest.fixture
def not_asked_to_be_deterministic():
    """It is by nature: on a CPU TensorFlow's own function for the loss is slower when asked."""
    determinism.disable_op_determinism()
    yield
    determinism.enable_op_determinism()


@pytest.mark.parametrize(("workload", "jit"), WAYS, ids=lambda each: getattr(each, "name", each))
def test_the_engine_and_a_bare_loop_come_to_the_same_bits(
    workload, jit, not_asked_to_be_deterministic
):
    random = np.random.default_rng(0)
    count = EPOCH * workload.batch
    images = random.integers(0, 256, (count, 28, 28, 1), np.uint8)
    labels = random.integers(0, 10, count).astype(np.int32)
    bare = Bare(workload, images, labels, jit == "loop")
    bare.take(STEPS)

    plan = Plan(examples=count, global_batch_size=workload.batch, layout=Layout(), seed=SEED)
    engine = put_together(
        lambda: models.build(
            MODELS[workload.network],
            input_shape=(28, 28, 1),
            classes=10,
            seed=SEED,
            hidden=workload.hidden,
        ),
        lambda strategy: Resident(images, labels, plan, strategy),
        Classification(),
        layout=Layout(),
        seed=SEED,
        optimizer="adam",
        rule={"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
        learning_rate=RATE,
        precision="mixed_bfloat16" if workload.bfloat16 else "float32",
        jit=jit,
    ).take(STEPS)
    assert same_bits([weight.numpy() for weight in bare.weights], engine.weights())
