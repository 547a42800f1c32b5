"""Tests that a run whose length is changed ends as one that had the last length from the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.checkpoint.catalog import read_metadata
from tests.chaos.sequences import contents
from tests.choices import seldom
from tests.cli.command import Run, Warm
from tests.sameness import differences

# 11 steps an epoch.
LOGISTIC = ("--model=logistic", "--jit=off", "--log_every=4")
EARLY = (*LOGISTIC, "--learning_rate=0.5", "--monitor=train_loss", "--patience=1", "--min_delta=1")


def lengthened(warm: Warm, run_dir: Path, options: tuple[str, ...], *lengths: str) -> Run:
    """Runs the command once for each length option, in one run directory; returns the run."""
    for length in lengths:
        run = warm.train(run_dir, *options, length)
    return run


@pytest.mark.parametrize("lengths", [(27, 55), (4, 12, 28, 33, 40), seldom((22, 23, 33))], ids=str)
def test_lengthened_run_keeps_bits(warm: Warm, tmp_path: Path, lengths: tuple[int, ...]):
    """A run extended by several commands equals one trained with the last length."""
    asked = [f"--train_steps={steps}" for steps in lengths]
    cut = lengthened(warm, tmp_path / "cut", LOGISTIC, *asked)
    alone = warm.train(tmp_path / "alone", *LOGISTIC, asked[-1])
    assert differences(alone.run_dir, cut.run_dir) == []


def test_end_within_epoch(warm: Warm, tmp_path: Path):
    """A run that ends inside an epoch is evaluated there, but the best epoch is a complete one."""
    run = warm.train(tmp_path / "run", *LOGISTIC, "--train_steps=27")
    assert [row["step"] for row in run.rows("validation")] == [11, 22, 27]
    assert [row["step"] for row in run.rows("train")] == [4, 8, 11, 12, 16, 20, 22, 24, 27]
    assert run.result["best"]["step"] in (11, 22)
    (line,) = (line for line in run.outcome.out.splitlines() if line.startswith("step 27"))
    assert "epoch 3" in line and "validation loss" in line


def test_run_shorter_than_epoch(warm: Warm, tmp_path: Path):
    """A run of less than an epoch has no best weights, and evaluates the test split."""
    run = warm.train(tmp_path / "run", *LOGISTIC, "--train_steps=7", "--restore_best")
    assert run.result["best"] is None and run.result["test"]["examples"] == 360
    assert [row["step"] for row in run.rows("train")] == [4, 7]


def test_stop_at_shorter_length(warm: Warm, tmp_path: Path):
    """A run shortened to a saved step that was no log point equals a run of that length."""
    options = (*LOGISTIC, "--checkpoint_every=1", "--keep=30")
    cut = warm.train(tmp_path / "cut", *options, "--train_steps=10").run_dir
    (cut / "result.json").unlink()
    for path in cut.glob("checkpoints/ckpt-*.npz"):  # a busy disk may have skipped some of them
        if read_metadata(str(path))["step"] > 7:
            path.unlink()
    warm.train(cut, *options, "--train_steps=7")
    alone = warm.train(tmp_path / "alone", *options, "--train_steps=7")
    assert differences(alone.run_dir, cut) == []


def test_early_stopping_whole_epochs(warm: Warm, tmp_path: Path):
    """Early stopping counts complete epochs, whatever the earlier lengths were."""
    cut = lengthened(warm, tmp_path / "cut", EARLY, "--train_steps=12", "--train_steps=220")
    alone = warm.train(tmp_path / "alone", *EARLY, "--train_steps=220")
    assert alone.result["stopped_early"] and alone.result["step"] % 11 == 0
    assert 12 < alone.result["step"] < 220
    assert differences(alone.run_dir, cut.run_dir) == []


@pytest.mark.parametrize("length", ["--epochs=1", seldom("--epochs=2"), "--train_steps=26"])
def test_length_already_passed(warm: Warm, tmp_path: Path, length: str):
    """A length below the run's step is refused, and no file changes."""
    run = warm.train(tmp_path / "run", *LOGISTIC, "--train_steps=27")
    before = contents(run.run_dir)
    outcome = warm.run(f"--run_dir={run.run_dir}", *LOGISTIC, length)
    assert outcome.status == 2, outcome.said()
    (line,) = outcome.err.splitlines()
    assert length in line and "step 27" in line and str(run.run_dir) in line
    assert contents(run.run_dir) == before


def test_more_epochs_after_early_stop(warm: Warm, tmp_path: Path):
    """More epochs after early stopping train nothing, and the output says why."""
    early = warm.train(tmp_path / "run", *EARLY, "--epochs=9")
    assert early.result["stopped_early"]
    again = warm.train(tmp_path / "run", *EARLY, "--epochs=20")
    (line,) = (line for line in again.outcome.out.splitlines() if "already complete" in line)
    assert "train_loss did not improve by more than 1 for 1 epoch, whatever --epochs is" in line
    assert "--epochs=20\n" in (early.run_dir / "config.flags").read_text()
    alone = warm.train(tmp_path / "alone", *EARLY, "--epochs=20")
    assert differences(alone.run_dir, again.run_dir) == []


def test_fewer_epochs_refused(warm: Warm, tmp_path: Path):
    """Fewer epochs than the run has trained are refused."""
    warm.train(tmp_path / "run", *LOGISTIC, "--epochs=3")
    outcome = warm.run(f"--run_dir={tmp_path / 'run'}", *LOGISTIC, "--epochs=2")
    assert outcome.status == 2 and "--epochs=3 or more" in outcome.err, outcome.said()


def test_restart_before_first_save(warm: Warm, tmp_path: Path):
    """A run that ended before its first step was saved starts over, even with other options."""
    warm.train(tmp_path / "run", "--model=mlp", "--train_steps=1")
    (tmp_path / "run" / "checkpoints" / "ckpt-2.npz").unlink()  # as if it failed before the save
    (tmp_path / "run" / "result.json").unlink()
    run = warm.train(tmp_path / "run", *LOGISTIC, "--epochs=2", "--seed=5")
    alone = warm.train(tmp_path / "alone", *LOGISTIC, "--epochs=2", "--seed=5")
    assert differences(alone.run_dir, run.run_dir) == []
    assert run.result["restarts"] == 0
