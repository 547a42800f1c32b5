"""Evaluation by steps and of the initial weights: curves, decisions and interruptions."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.choices import seldom
from tests.cli.command import HANG, LONG, Run, Warm, await_rows
from tests.sameness import differences

# 81 steps an epoch; an evaluation every 35, some of them not in an epoch's last call.
BY_STEPS = (*LONG, "--epochs=3", "--evaluate_every=35", "--evaluate_at_start", "--ema=0.9")
EVALUATED = [0, 35, 70, 105, 140, 175, 210]


@pytest.fixture(scope="module")
def by_steps(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that was evaluated by steps, without interruption."""
    return warm.train(tmp_path_factory.mktemp("by_steps") / "run", *BY_STEPS)


def steps_of(run: Run, split: str) -> list[int]:
    return [row["step"] for row in run.rows(split)]


def test_evaluated_steps(by_steps: Run):
    """The validation rows are at the multiples of --evaluate_every, and at the end of the run."""
    assert steps_of(by_steps, "validation") == [*EVALUATED, 243]
    assert [row["epoch"] for row in by_steps.rows("validation")] == [1, 1, 1, 2, 2, 3, 3, 3]
    logged = range(5, 244, 5)
    assert steps_of(by_steps, "train") == sorted({*logged, *EVALUATED[1:], 243})
    # The training metrics of each row are of the examples since the row before.
    assert sum(row["examples"] for row in by_steps.rows("train")) == 3 * 1293
    assert "initial weights: validation loss" in by_steps.outcome.out
    assert "\nstep 35, epoch 1/3: train loss" in by_steps.outcome.out
    assert "\nstep 243, epoch 3/3, end of the training: train loss" in by_steps.outcome.out


def test_interval_of_an_epoch(warm: Warm, tmp_path: Path):
    """With the steps of an epoch as the interval, everything is as with evaluation by epochs."""
    epochs = warm.train(tmp_path / "epochs", *LONG, "--epochs=2")
    steps = warm.train(tmp_path / "steps", *LONG, "--epochs=2", "--evaluate_every=81")
    assert steps.curves == epochs.curves
    for name in ("weights_sha256", "best", "validation", "test"):
        assert steps.result[name] == epochs.result[name]


@pytest.mark.parametrize(
    ("number", "rows"), [(signal.SIGKILL, 25), (signal.SIGTERM, 12), seldom(signal.SIGKILL, 3)]
)
def test_interrupted(warm: Warm, by_steps: Run, tmp_path: Path, number: signal.Signals, rows: int):
    run_dir = tmp_path / "run"
    with warm.started(f"--run_dir={run_dir}", *BY_STEPS) as process:
        await_rows(process, run_dir, rows)
        process.send_signal(number)
        process.wait(HANG)
    warm.train(run_dir, *BY_STEPS)
    assert differences(by_steps.run_dir, run_dir) == []


def test_lengthened(warm: Warm, by_steps: Run, tmp_path: Path):
    """A run that ended between two evaluations, and is lengthened, is that of the last length."""
    for length in ("--train_steps=36", "--train_steps=100", "--epochs=3"):
        warm.train(tmp_path / "run", *BY_STEPS, length)
    assert differences(by_steps.run_dir, tmp_path / "run") == []


def test_patience_counts_evaluations(warm: Warm, tmp_path: Path):
    options = ("--model=logistic", "--epochs=9", "--evaluate_every=4", "--min_delta=9")
    run = warm.train(tmp_path / "run", *options, "--patience=3")
    assert run.result["stopped_early"] and run.result["step"] == 16
    assert "did not improve by more than 9 for 3 evaluations" in run.outcome.out


def test_initial_weights_are_the_best(warm: Warm, tmp_path: Path):
    """The initial weights are kept, and tested, if no others are better."""
    options = ("--model=logistic", "--epochs=2", "--optimizer=sgd", "--learning_rate=30")
    options += ("--monitor=validation_loss", "--evaluate_at_start", "--restore_best")
    run = warm.train(tmp_path / "run", *options)
    first = run.rows("validation")[0]
    assert run.result["best"] == {"step": 0, "metric": "validation_loss", "value": first["loss"]}
    assert run.result["validation"]["loss"] == pytest.approx(first["loss"], rel=1e-6)
    outcome = warm.run("--mode=evaluate", f"--run_dir={run.run_dir}")
    assert outcome.status == 0, outcome.said()
    assert "of step 0" in outcome.out


def test_monitor_of_training_at_the_start(warm: Warm, tmp_path: Path):
    """At step 0 there is no training loss, which is neither the best nor counted."""
    options = ("--model=logistic", "--epochs=2", "--monitor=train_loss", "--evaluate_at_start")
    run = warm.train(tmp_path / "run", *options)
    assert steps_of(run, "validation") == [0, 11, 22] and run.result["best"]["step"] == 22


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "epochs", ""])
def test_refuses_interval(warm: Warm, tmp_path: Path, value: str):
    outcome = warm.run(f"--run_dir={tmp_path / 'run'}", f"--evaluate_every={value}")
    assert outcome.status == 2 and not (tmp_path / "run").exists()
    assert f"--evaluate_every={value}: give epoch or a number of steps" in outcome.err


def test_fixed_on_resume(warm: Warm, by_steps: Run):
    options = (f"--run_dir={by_steps.run_dir}", *BY_STEPS, "--epochs=4", "--evaluate_every=36")
    outcome = warm.run(*options)
    assert outcome.status == 2 and "--evaluate_every=36 (was 35)" in outcome.err
