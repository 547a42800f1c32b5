"""The checks of recipes on a short flagfile; `python -m tests.chaos.recipes` checks the recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.chaos.recipes import RecipeRuns, main
from tests.cli.command import REPOSITORY

FLAGFILE = REPOSITORY / "quickstart.flags"
SHORT = ("--train_steps=60", "--jit=off")


def test_killed_training_keeps_bits(tmp_path: Path):
    said = RecipeRuns(FLAGFILE, tmp_path, *SHORT).killed_alike(1, np.random.default_rng(0))
    assert said.startswith("60 steps, ") and "the same bits" in said


def test_first_steps_on_two_devices(tmp_path: Path):
    said = RecipeRuns(FLAGFILE, tmp_path, *SHORT).sharded_alike(20)
    assert said == "20 steps with --shards=2, 1 and 2 devices: the same bits"


def test_a_difference_is_found(tmp_path: Path):
    class OtherSeed(RecipeRuns):
        def _start(self, run_dir, *options):
            return super()._start(run_dir, *options, f"--seed={int('2' in run_dir.name)}")

    with pytest.raises(AssertionError, match=r"differ on 2 devices: .*layers/0"):
        OtherSeed(FLAGFILE, tmp_path, *SHORT).sharded_alike(20)


def test_a_training_that_fails(tmp_path: Path):
    with pytest.raises(AssertionError, match=r"exit status 2: .*--seed"):
        RecipeRuns(FLAGFILE, tmp_path, "--seed=x").killed_alike(1, np.random.default_rng(0))


@pytest.mark.parametrize("wrong", ["--kills=0", "--steps=-1", "--only=nothing"])
def test_bad_input(wrong, capsys):
    with pytest.raises(SystemExit) as exited:
        main(["--data_dir=data", wrong])
    assert exited.value.code == 2 and wrong.split("=")[0] in capsys.readouterr().err
