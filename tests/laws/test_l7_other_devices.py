"""L7: saved on some devices, a run goes on on others as if nothing had happened.

With `--shards` to the bit; without within what N devices differ by from one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.assembly import Parts
from engine.keeping.checkpoints import Checkpoints
from engine.keeping.restorer import Restorer
from engine.verify.bounds import FLOAT32_RUN
from engine.verify.differences import difference
from engine.verify.trajectory import everything_in, take, weights
from tests.choices import seldom
from tests.laws.product import Case, assembled, options_of

STEPS = 20  # after each change
WAY = (1, 2, 4, 1)


def parts_on(replicas: int, place: Path, model: str, **options: Any) -> Parts:
    case = Case(replicas, "float32", 1, 0.5, "partial", 0.9, "resident", model)
    return assembled(str(place), replicas=replicas, **{**options_of(case), **options})


def way(place: Path, model: str, **options: Any) -> list[Parts]:
    """The run on each of the devices in turn, each where it hands over."""
    stages: list[Parts] = []
    for replicas in WAY:
        parts = parts_on(replicas, place, model, **options)
        if stages:
            Checkpoints(str(place), stages[-1].state, keep=2).save_now()
            Restorer(str(place), parts.state).newest()
        stages.append(take(parts, STEPS))
    return stages


@pytest.mark.parametrize("model", [seldom("law_dropout"), "law_norm"])
def test_after_each_change_weights_are_those_of_a_run_that_stayed(tmp_path, model):
    stayed = parts_on(1, tmp_path, model)
    for moved in way(tmp_path, model):
        take(stayed, STEPS)
        assert int(moved.state.step) == int(stayed.state.step)
        ours = weights(moved)
        for name, value in weights(stayed).items():
            assert difference(value, ours[name]) <= FLOAT32_RUN, name


@pytest.mark.parametrize("model", ["law_dropout", seldom("law_norm")])
def test_with_shards_all_of_the_state_is_that_of_a_run_that_stayed(tmp_path, model):
    stayed = parts_on(1, tmp_path, model, shards=4)
    for moved in way(tmp_path, model, shards=4):
        assert everything_in(moved) == everything_in(take(stayed, STEPS))
