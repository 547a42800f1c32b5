"""Tests of law L7: a run that is saved on some number of devices resumes on another.

With `--shards` the states are bitwise equal; without, they differ within a rounding bound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.assembly.parts import Parts
from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.restore import Restorer
from engine.verify.bounds import FLOAT32_RUN
from engine.verify.differences import difference
from engine.verify.trajectory import state_bytes, take, weights
from tests.choices import seldom
from tests.laws.product import Case, assembled, options_of

STEPS = 20  # after each change
WAY = (1, 2, 4, 1)


def parts_on(replicas: int, place: Path, model: str, **options: Any) -> Parts:
    case = Case(replicas, "float32", 1, 0.5, "partial", 0.9, "resident", model)
    return assembled(str(place), replicas=replicas, **{**options_of(case), **options})


def way(place: Path, model: str, **options: Any) -> list[Parts]:
    """Trains on each device count of `WAY` in turn; returns the parts of each stage.

    Each stage after the first resumes from a checkpoint of the stage before.
    """
    stages: list[Parts] = []
    for replicas in WAY:
        parts = parts_on(replicas, place, model, **options)
        if stages:
            CheckpointManager(str(place), stages[-1].state, keep=2).save_and_wait()
            Restorer(str(place), parts.state).newest()
        stages.append(take(parts, STEPS))
    return stages


@pytest.mark.parametrize("model", [seldom("law_dropout"), "law_norm"])
def test_weights_after_device_changes(tmp_path, model):
    """After each change of devices, the weights match those on one device within rounding."""
    stayed = parts_on(1, tmp_path, model)
    for moved in way(tmp_path, model):
        take(stayed, STEPS)
        assert int(moved.state.step) == int(stayed.state.step)
        ours = weights(moved)
        for name, value in weights(stayed).items():
            assert difference(value, ours[name]) <= FLOAT32_RUN, name


@pytest.mark.parametrize("model", ["law_dropout", seldom("law_norm")])
def test_sharded_state_after_device_changes(tmp_path, model):
    """With shards, the state after each change of devices is bitwise that on one device."""
    stayed = parts_on(1, tmp_path, model, shards=4)
    for moved in way(tmp_path, model, shards=4):
        assert state_bytes(moved) == state_bytes(take(stayed, STEPS))
