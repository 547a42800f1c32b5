"""Tests of the laws on the built-in residual network, vision transformer and transformer.

    python -m pytest tests/laws/test_networks.py            a transformer
    python -m pytest tests/laws/test_networks.py -m full    the others of the product, minutes each

In float32, each tensor on two replicas is within `engine.verify.bounds.bound` of that on one. In a
16-bit precision, the rounding error of two replicas, relative to one device in float32, is compared
with that of one device (engine/verify/rounding_errors.py, which says where the bound comes from).

tests/cli/test_networks.py has `--mode=verify` on the same product.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.assembly.parts import Parts
from engine.assembly.registry import SOURCES
from engine.core import step as step_module
from engine.core.step import Step
from engine.verify import rounding_errors
from engine.verify.bounds import bound
from engine.verify.differences import Difference, difference, worst
from engine.verify.fault_injection import FaultInjectingTask
from engine.verify.trajectory import run_steps_measured, state_bytes, take, weights
from tests.laws.networks import FAMILIES, law_ids, short_training, task_of
from tests.laws.product import assembled

STEPS = 3
USUAL = "transformer", (1, "mixed_float16", 2, "step")  # (replicas, precision, accumulate, jit)
POINTS = list(
    itertools.product(
        (1, 2), ("float32", "mixed_bfloat16", "mixed_float16"), (1, 2), ("off", "step")
    )
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(SOURCES._entries, "law_ids", law_ids)


def options_of(name: str, precision: str, accumulate: int = 1, jit: str = "off"):
    """Returns the options of a network's training by name."""
    return {
        **short_training(name),
        "precision": precision,
        "accumulate": accumulate,
        "jit": jit,
        "optimizer": "momentum",
        "learning_rate": 0.001,
        **({"loss_scale": 1024.0} if precision == "mixed_float16" else {}),
    }


def rounding(place: str, name: str, alone: Parts, many: Parts) -> list[Difference]:
    """Compares the rounding errors of runs of `STEPS` steps on one device and on several.

    Args:
      place: directory for the run in float32 that is the reference.
      name: key of `FAMILIES`.
      alone: run on one device, in a 16-bit precision.
      many: run on several replicas, with the options of `alone`.
    """
    config = alone.config
    precision, accumulate = config.precision.precision, config.training.accumulate
    options = options_of(name, "float32", accumulate, config.loop.jit)
    exact = assembled(place, task=task_of(name), **options)
    path, reference = run_steps_measured(exact, STEPS), weights(exact)
    one, several = (
        rounding_errors.errors(reference, weights(each), path) for each in (alone, many)
    )
    groups = rounding_errors.kinds(exact.state.model, reference)
    return rounding_errors.compare(one, several, groups, precision)


@pytest.mark.parametrize(
    ("name", "point"),
    [
        pytest.param(
            *(name, point),
            id="-".join(map(str, (name, *point))),
            marks=() if (name, point) == USUAL else pytest.mark.full,
        )
        for name in FAMILIES
        for point in POINTS
    ],
)
def test_laws_hold(name, point, tmp_path_factory):
    place = str(tmp_path_factory.getbasetemp() / name)
    replicas, precision, accumulate, jit = point
    options = options_of(name, precision, accumulate, jit)
    alone = assembled(place, task=task_of(name), **options)
    task = FaultInjectingTask(task_of(name))
    path = run_steps_measured(alone, STEPS)
    many = take(assembled(place, replicas=replicas, task=task, **options), STEPS)
    assert int(many.state.updates) == int(alone.state.updates) == STEPS

    # L3, and L1, L2, L7: the same bits twice on one device, and on several what one gives.
    ours, theirs = weights(alone), weights(many)
    for each, value in ours.items():
        if replicas == 1:
            assert value.tobytes() == theirs[each].tobytes(), each
        elif precision == "float32":
            allowed = bound(precision, path[each], float(np.linalg.norm(value)))
            assert difference(value, theirs[each]) <= allowed, each
    if replicas > 1 and precision != "float32":
        compared = rounding(place, name, alone, many)
        assert all(each.within for each in compared), worst(compared)

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
            state_bytes(
                take(assembled(place, replicas=n, task=task_of(name), shards=2, **options), STEPS)
            )
            for n in (1, replicas)
        ]
        assert sharded[0] == sharded[1]


def local_statistics(monkeypatch):
    """Breaks batch norm: each replica normalizes by the statistics of its own rows."""
    monkeypatch.setattr(step_module, "of_micro_batch", lambda reduction: list)


def summed_gradients(monkeypatch):
    """Breaks the reduction: gradients are those of the sum over replicas of their mean losses."""

    def apply_gradients(step, total, context, update=None):
        count = len(step.model.trainable_variables)
        reduced = step.reduce(total)
        doubled = [2 * gradient for gradient in reduced[:count]]
        return (update or step.update)([*doubled, *reduced[count:]], context)

    monkeypatch.setattr(Step, "apply_gradients", apply_gradients)


def own_gradients(monkeypatch):
    """Breaks the reduction: each replica applies the gradients of its own rows."""

    def apply_gradients(step, total, context, update=None):
        count = len(step.model.trainable_variables)
        return (update or step.update)([*total[:count], *step.reduce(total)[count:]], context)

    monkeypatch.setattr(Step, "apply_gradients", apply_gradients)


@pytest.mark.full
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_rounding_hides_no_fault(precision, tmp_path, monkeypatch):
    """The bound of the 16-bit precisions is exceeded by each of three faults of replicas."""
    place, options = str(tmp_path), options_of("resnet", precision)

    def trained(replicas):
        return take(assembled(place, replicas=replicas, task=task_of("resnet"), **options), STEPS)

    alone = trained(1)
    assert all(each.within for each in rounding(place, "resnet", alone, trained(2)))
    # The gradients of the last layers hardly depend on the statistics of those before them.
    faults = {
        local_statistics: ("layers/19", "layers/22"),
        summed_gradients: ("layers/22",),
        own_gradients: ("layers/22",),
    }
    for fault, spared in faults.items():
        with monkeypatch.context() as broken:
            fault(broken)
            many = trained(2)
        compared = rounding(place, "resnet", alone, many)
        exceeded = {each.name for each in compared if not each.within}
        assert any("mean error" in each for each in exceeded), fault.__name__
        kernels = {name for name in weights(alone) if name.endswith("kernel")}
        expected = {name for name in kernels if not any(each in name for each in spared)}
        assert expected <= exceeded, fault.__name__
