"""Runs the checks of `tests.examples.matrix`: a selection by default, the others with `-m full`."""

from __future__ import annotations

import pytest

from tests.cli.command import Command, Warm
from tests.examples.jobs import JOBS, SWITCHING
from tests.examples.matrix import CHECKS, Matrix

# Each check on examples that differ in what it depends on; about two minutes on two cores.
PART = {
    "train": tuple(name for name in JOBS if name not in SWITCHING),
    "kill, resume": ("keras_model",),
    "step, 2 devices": ("own_training",),
    "shards, 2 devices": ("tf_module",),
    "evaluate": ("multi_label",),
    "predict": ("folder", "text_classification"),
    "export": ("segmentation",),
    "report": ("multi_label",),
    "verify": ("arrays",),
    "benchmark": ("text_classification",),
    "inspect": ("keras_model", "segmentation", "character_model"),
    "bfloat16": ("character_model",),
}


@pytest.fixture(scope="module")
def matrices(command: Command, warm: Warm, tmp_path_factory: pytest.TempPathFactory):
    """Returns a function from the name of an example to its `Matrix`, made once for the module."""
    found: dict[str, Matrix] = {}

    def matrix(name: str) -> Matrix:
        if name not in found:
            place = tmp_path_factory.mktemp(name)
            found[name] = Matrix(JOBS[name], command, warm, place)
        return found[name]

    return matrix


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, marks=() if name in PART[check] else pytest.mark.full)
        for name in JOBS
        if name not in SWITCHING  # minutes for each check: by the command alone
        for check in CHECKS
    ],
)
def test_example(matrices, name: str, check: str):
    if not JOBS[name].available:
        pytest.skip("no prepared data: set TAPELINE_TEST_DATA_DIR")
    CHECKS[check](matrices(name))


def test_part_covers_all_checks():
    assert PART.keys() == CHECKS.keys() and all(PART.values())
