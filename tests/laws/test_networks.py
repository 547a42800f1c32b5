"""Tests of the laws on the built-in residual network, vision transformer and transformer.

    python -m pytest tests/laws/test_networks.py            a transformer
    python -m pytest tests/laws/test_networks.py -m full    the others of the product, minutes each

tests/cli/test_networks.py has `--mode=verify` on the same product.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

import tapeline as tl
from engine.assembly.registry import SOURCES
from engine.tasks.classification import Classification
from engine.verify.bounds import bound
from engine.verify.differences import difference
from engine.verify.fault_injection import FaultInjectingTask
from engine.verify.trajectory import run_steps_measured, state_bytes, take, weights
from tests.laws.product import assembled

STEPS = 3
NETWORKS = {
    "resnet": {"model": "resnet", "model.depth": 20},
    "vit": {"model": "vit", "model.patch": 4, "model.dropout": 0.1},
    "transformer": {
        "model": "transformer",
        "model.layers": 2,
        "model.heads": 2,
        "model.width": 8,
        "model.dropout": 0.1,
        "dataset": "law_ids",
        "validation_split": "0",
    },
}
USUAL = "transformer", (1, "mixed_float16", 2, "step")  # (replicas, precision, accumulate, jit)
POINTS = list(
    itertools.product(
        (1, 2), ("float32", "mixed_bfloat16", "mixed_float16"), (1, 2), ("off", "step")
    )
)


def law_ids():
    """Returns sequences of 7 ids, each the sum of the two before modulo 11, and those after."""
    ids = np.random.default_rng(0).integers(0, 11, (40, 8)).astype(np.uint8)
    for place in range(2, 8):
        ids[:, place] = (ids[:, place - 1] + ids[:, place - 2]) % 11
    return tl.arrays(inputs=ids[:, :-1], targets=ids[:, 1:])


class LawNextId(tl.Task):
    """Task of the next id at each position."""

    def __init__(self):
        self.metrics = {}

    def output_spec(self, source):
        return tf.TensorSpec([*source.targets.shape, 11])

    def __call__(self, model, batch, context):
        logits, targets = model(batch.inputs, context), tf.cast(batch.targets, tf.int64)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tl.TaskOutput(tf.reduce_mean(losses, -1))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(SOURCES._entries, "law_ids", law_ids)


@pytest.mark.parametrize(
    ("name", "point"),
    [
        pytest.param(
            *(name, point),
            id="-".join(map(str, (name, *point))),
            marks=() if (name, point) == USUAL else pytest.mark.full,
        )
        for name in NETWORKS
        for point in POINTS
    ],
)
def test_laws_hold(name, point, tmp_path_factory):
    place = str(tmp_path_factory.getbasetemp() / name)
    replicas, precision, accumulate, jit = point
    options = {
        **NETWORKS[name],
        "precision": precision,
        "accumulate": accumulate,
        "jit": jit,
        "train_split": "" if name == "transformer" else "train[:21]",
        "global_batch_size": 8,
        "optimizer": "momentum",
        "learning_rate": 0.001,
        "loss_scale": 1024.0,
    }
    if precision != "mixed_float16":
        del options["loss_scale"]
    if not options["train_split"]:
        del options["train_split"]
    made = LawNextId if name == "transformer" else Classification
    alone = assembled(place, task=made(), **options)
    task = FaultInjectingTask(made())
    path = run_steps_measured(alone, STEPS)
    many = take(assembled(place, replicas=replicas, task=task, **options), STEPS)
    assert int(many.state.updates) == int(alone.state.updates) == STEPS

    # L3, and L1, L2, L7: the same bits twice on one device, and on several what one gives.
    ours, theirs = weights(alone), weights(many)
    for each, value in ours.items():
        if replicas == 1:
            assert value.tobytes() == theirs[each].tobytes(), each
        else:
            allowed = bound(precision, path[each], float(np.linalg.norm(value)))
            assert difference(value, theirs[each]) <= allowed, each

    # L2: a bad row on one replica, and no replica is updated.
    scale = many.state.loss_scale
    free = (many.state.step, scale.value, scale.finite_steps)
    before = state_bytes(many, but=free)
    task.inject(0, np.inf)
    many.loop.run(1)
    task.heal()
    assert state_bytes(many, but=free) == before and int(many.state.updates) == STEPS

    # L7 with shards: the same bits.
    if replicas > 1:
        sharded = [
            state_bytes(take(assembled(place, replicas=n, task=made(), shards=2, **options), STEPS))
            for n in (1, replicas)
        ]
        assert sharded[0] == sharded[1]
