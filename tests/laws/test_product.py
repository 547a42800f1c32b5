"""The laws on the product of features: replicas, precision, accumulation, clipping, a remainder,
averaged weights, feeds and models, as the command puts them together.

    python -m pytest tests/laws             a covering part of the product
    python -m pytest tests/laws -m full     all of it
"""

from __future__ import annotations

import numpy as np
import pytest

from engine.task import Classification
from engine.verify.bounds import FLOAT32_RUN, UNIT_ROUNDOFF, bound
from engine.verify.differences import difference
from engine.verify.poison import Poisoned
from engine.verify.trajectory import everything_in, take, take_measured, weights
from tests.choices import choices
from tests.laws.product import FACTORS, STEPS, Case, assembled, options_of

CASES = [
    pytest.param(Case(*chosen.values), id=chosen.id, marks=chosen.marks)
    for chosen in choices(*FACTORS.values(), strength=2)
]


@pytest.mark.parametrize("case", CASES)
def test_the_laws_hold(case: Case, tmp_path_factory):
    place, options = str(tmp_path_factory.getbasetemp()), options_of(case)
    task = Poisoned(Classification())
    many = take(assembled(place, replicas=case.replicas, task=task, **options), STEPS)

    # L1, L2, L7: N replicas train as one does.
    alone = assembled(place, **options)
    path = take_measured(alone, STEPS)
    ours, theirs = weights(alone), weights(many)
    for name, value in ours.items():
        allowed = bound(case.precision, path[name], float(np.linalg.norm(value)))
        if case.replicas == 1:
            assert value.tobytes() == theirs[name].tobytes(), name
        else:
            assert difference(value, theirs[name]) <= allowed, name
    if case.precision != "float32" and case.model == "law_dropout" and case.remainder == "exact":
        # A device that computes the portions of all in turn rounds each to the same bits.
        in_turn = {**options, "accumulate": case.accumulate * case.replicas}
        ours = weights(take(assembled(place, **in_turn), STEPS))
        for name, value in ours.items():
            assert difference(value, theirs[name]) <= FLOAT32_RUN, name
    assert int(alone.state.updates) == int(many.state.updates)
    examples = 80 * 4 if case.remainder == "exact" else 77 * 4
    if not int(alone.state.step) - int(alone.state.updates):
        assert many.state.sums.numpy()[2] == alone.state.sums.numpy()[2] == examples

    overflow(case, many, task)

    # L7 with virtual shards: the same bits.
    if case.replicas > 1:
        sharded = [
            everything_in(take(assembled(place, replicas=replicas, shards=4, **options), STEPS))
            for replicas in (1, case.replicas)
        ]
        assert sharded[0] == sharded[1]


@pytest.mark.parametrize(
    ("precision", "seed"), choices(["mixed_bfloat16", "mixed_float16"], range(3))
)
def test_where_nothing_switches_roundings_are_all_that_differs(precision, seed, tmp_path_factory):
    """The first part of the bound alone, 4u of the path, under a rule that doubles nothing.

    The loss scale leaves so much room that no topology skips a step that the other takes.
    """
    place = str(tmp_path_factory.getbasetemp())
    case = Case(2, precision, 1, 0.0, "exact", 0.0, "resident", "law_linear")
    options = {**options_of(case), "optimizer": "sgd", "seed": seed}
    if precision == "mixed_float16":
        options["loss_scale"] = 1024.0
    many = take(assembled(place, replicas=2, **options), STEPS)
    alone = assembled(place, **options)
    path, theirs = take_measured(alone, STEPS), weights(many)
    assert int(alone.state.updates) == int(many.state.updates) == STEPS
    for name, value in weights(alone).items():
        allowed = 4 * UNIT_ROUNDOFF[precision] * path[name] / float(np.linalg.norm(value))
        assert difference(value, theirs[name]) <= allowed, name


def overflow(case: Case, parts, task: Poisoned) -> None:
    """L2: what is not finite on one replica moves nothing on any; the next step goes on."""
    scale = parts.state.loss_scale
    for row, factor in ((0, np.inf), (parts.config.training.global_batch_size - 1, np.nan)):
        while int(parts.state.step) % parts.steps_per_epoch:  # to a batch with all its rows
            parts.loop.run(1)
        free = (parts.state.step, scale.value, scale.good_steps)
        before, scale_before = everything_in(parts, but=free), float(scale.value)
        step, updates = int(parts.state.step), int(parts.state.updates)
        task.poison(row, factor)
        parts.loop.run(1)
        task.heal()
        assert everything_in(parts, but=free) == before
        assert (int(parts.state.step), int(parts.state.updates)) == (step + 1, updates)
        halved = case.precision == "mixed_float16"
        assert float(scale.value) == scale_before / (2 if halved else 1)
        parts.loop.run(1)
        assert int(parts.state.updates) == updates + 1
        assert all(np.isfinite(value).all() for value in weights(parts).values())
