"""Tests of the laws on combinations of features, with runs assembled as by run.py.

The features are replicas, precision, gradient accumulation, clipping, partial batches, the EMA of
the weights, feeds and models.

    python -m pytest tests/laws             a covering design
    python -m pytest tests/laws -m full     all combinations
"""

from __future__ import annotations

import numpy as np
import pytest

from engine.tasks.classification import Classification
from engine.verify.bounds import FLOAT32_RUN, UNIT_ROUNDOFF, bound
from engine.verify.differences import difference
from engine.verify.fault_injection import FaultInjectingTask
from engine.verify.trajectory import run_steps_measured, state_bytes, take, weights
from tests.choices import choices
from tests.laws.product import FACTORS, STEPS, Case, assembled, options_of

CASES = [
    pytest.param(Case(*chosen.values), id=chosen.id, marks=chosen.marks)
    for chosen in choices(*FACTORS.values(), strength=2)
]


@pytest.mark.parametrize("case", CASES)
def test_laws_hold(case: Case, tmp_path_factory):
    place, options = str(tmp_path_factory.getbasetemp()), options_of(case)
    task = FaultInjectingTask(Classification())
    many = take(assembled(place, replicas=case.replicas, task=task, **options), STEPS)

    # L1, L2, L7: N replicas match one device.
    alone = assembled(place, **options)
    path = run_steps_measured(alone, STEPS)
    ours, theirs = weights(alone), weights(many)
    for name, value in ours.items():
        allowed = bound(case.precision, path[name], float(np.linalg.norm(value)))
        if case.replicas == 1:
            assert value.tobytes() == theirs[name].tobytes(), name
        else:
            assert difference(value, theirs[name]) <= allowed, name
    if case.precision != "float32" and case.model == "law_dropout" and case.remainder == "exact":
        # One device that computes the parts of all replicas in turn rounds each to the same bits.
        in_turn = {**options, "accumulate": case.accumulate * case.replicas}
        ours = weights(take(assembled(place, **in_turn), STEPS))
        for name, value in ours.items():
            assert difference(value, theirs[name]) <= FLOAT32_RUN, name
    assert int(alone.state.updates) == int(many.state.updates)
    examples = 80 * 4 if case.remainder == "exact" else 77 * 4
    if not int(alone.state.step) - int(alone.state.updates):
        assert many.state.sums.numpy()[2] == alone.state.sums.numpy()[2] == examples

    overflow(case, many, task)

    # L7 with shards: the same bits.
    if case.replicas > 1:
        sharded = [
            state_bytes(take(assembled(place, replicas=replicas, shards=4, **options), STEPS))
            for replicas in (1, case.replicas)
        ]
        assert sharded[0] == sharded[1]


@pytest.mark.parametrize(
    ("precision", "seed"), choices(["mixed_bfloat16", "mixed_float16"], range(3))
)
def test_smooth_network_rounding(precision, seed, tmp_path_factory):
    """A smooth network trained by SGD differs between topologies by at most 4u of the path.

    u is the unit roundoff of the precision, and the path the sum of the norms of all updates. The
    loss scale is low enough that no step overflows on either topology.
    """
    place = str(tmp_path_factory.getbasetemp())
    case = Case(2, precision, 1, 0.0, "exact", 0.0, "resident", "law_linear")
    options = {**options_of(case), "optimizer": "sgd", "seed": seed}
    if precision == "mixed_float16":
        options["loss_scale"] = 1024.0
    many = take(assembled(place, replicas=2, **options), STEPS)
    alone = assembled(place, **options)
    path, theirs = run_steps_measured(alone, STEPS), weights(many)
    assert int(alone.state.updates) == int(many.state.updates) == STEPS
    for name, value in weights(alone).items():
        allowed = 4 * UNIT_ROUNDOFF[precision] * path[name] / float(np.linalg.norm(value))
        assert difference(value, theirs[name]) <= allowed, name


def overflow(case: Case, parts, task: FaultInjectingTask) -> None:
    """Asserts that a bad step on one replica updates no replica, and that the next step trains.

    The bad steps are one with an infinite gradient in the first row, and one with NaN in the last.
    """
    scale = parts.state.loss_scale
    for row, factor in ((0, np.inf), (parts.config.training.global_batch_size - 1, np.nan)):
        while int(parts.state.step) % parts.steps_per_epoch:  # to a full batch
            parts.loop.run(1)
        free = (parts.state.step, scale.value, scale.finite_steps)
        before, scale_before = state_bytes(parts, but=free), float(scale.value)
        step, updates = int(parts.state.step), int(parts.state.updates)
        task.inject(row, factor)
        parts.loop.run(1)
        task.heal()
        assert state_bytes(parts, but=free) == before
        assert (int(parts.state.step), int(parts.state.updates)) == (step + 1, updates)
        halved = case.precision == "mixed_float16"
        assert float(scale.value) == scale_before / (2 if halved else 1)
        parts.loop.run(1)
        assert int(parts.state.updates) == updates + 1
        assert all(np.isfinite(value).all() for value in weights(parts).values())
