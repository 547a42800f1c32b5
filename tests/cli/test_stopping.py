"""Rules that end training before its length, and by time; each is named in result.json."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.command import HANG, LONG, Run, Warm, await_rows
from tests.sameness import differences

SHORT = ("--model=logistic", "--epochs=9", "--learning_rate=0.01")


def reasons(run: Run) -> tuple[bool, str | None, str | None]:
    return tuple(run.result[name] for name in ("stopped_early", "stopped_by", "stop_reason"))


def test_nothing_stops(warm: Warm, tmp_path: Path):
    run = warm.train(tmp_path / "run", *SHORT, "--epochs=2")
    assert reasons(run) == (False, None, None)


@pytest.mark.parametrize(
    ("options", "step", "by", "reason"),
    [
        (("--stop_at=0.5",), None, "stop_at", "validation_accuracy reached --stop_at=0.5"),
        (
            ("--stop_at=0.5", "--min_epochs=7", "--patience=5"),
            77,
            "stop_at",
            "validation_accuracy reached --stop_at=0.5",
        ),
        (
            ("--baseline=0.999:30",),
            33,
            "baseline",
            "validation_accuracy did not reach 0.999 by step 30, as --baseline requires",
        ),
        (
            ("--min_delta=9", "--patience=1", "--min_epochs=4"),
            44,
            "patience",
            "validation_accuracy did not improve by more than 9 for 3 epochs",
        ),
        (
            ("--monitor=train_gradient_norm", "--min_delta=9", "--patience=1"),
            22,
            "patience",
            "train_gradient_norm did not improve by more than 9 for 1 epoch",
        ),
    ],
)
def test_stops_early(warm: Warm, tmp_path: Path, options, step, by, reason):
    """A rule stops training at an evaluation, and a longer command does not continue."""
    run = warm.train(tmp_path / "run", *SHORT, *options)
    assert reasons(run) == (True, by, reason)
    assert run.result["step"] == (step or run.result["best"]["step"])
    assert f"stopped early after epoch {run.result['epoch']}: {reason}" in run.outcome.out
    again = warm.train(tmp_path / "run", *SHORT, *options, "--epochs=20")
    assert reasons(again) == reasons(run) and again.result["step"] == run.result["step"]
    assert reason in again.outcome.out
    same = warm.train(tmp_path / "run", *SHORT, *options, "--epochs=20")
    assert f"stopped early: {reason}" in same.outcome.out


def test_target_after_a_kill(warm: Warm, tmp_path: Path):
    options = (*LONG, "--stop_at=0.9", "--baseline=0.3:160", "--min_epochs=2")
    whole = warm.train(tmp_path / "whole", *options)
    assert reasons(whole)[:2] == (True, "stop_at")
    with warm.started(f"--run_dir={tmp_path / 'run'}", *options) as process:
        await_rows(process, tmp_path / "run", 20)
        process.send_signal(signal.SIGKILL)
        process.wait(HANG)
    warm.train(tmp_path / "run", *options)
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_time_limit(warm: Warm, whole: Run, tmp_path: Path):
    """A command that ends by time evaluates and says so; the same command continues the run."""
    run_dir, options = tmp_path / "run", LONG
    ended = warm.train(run_dir, *options, "--max_hours=1e-6")  # one call of the graph
    first = ended.result["step"]
    assert 0 < first < whole.result["step"] and ended.result["validation"] is not None
    assert reasons(ended) == (False, "max_hours", "--max_hours=1e-06 have passed")
    assert f"training ended at step {first:,}, saved: --max_hours=1e-06" in ended.outcome.out
    again = warm.train(run_dir, *options, "--max_hours=1e-6")
    assert again.result["step"] > first and f"resumed at step {first:,}" in again.outcome.out
    warm.train(run_dir, *options)
    assert differences(whole.run_dir, run_dir) == []


@pytest.mark.parametrize(
    "option", ["--stop_at=high", "--baseline=0.5", "--baseline=a:5", "--min_epochs=-1"]
)
def test_refuses(warm: Warm, tmp_path: Path, option: str):
    outcome = warm.run(f"--run_dir={tmp_path / 'run'}", option)
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and f"{option}:" in outcome.err
    assert not (tmp_path / "run").exists()


PLATEAU = (
    *(*LONG, "--schedule=plateau", "--plateau_patience=1", "--plateau_cooldown=1"),
    *("--min_delta=0.2", "--decay_rate=0.5", "--final_fraction=0.3", "--evaluate_every=30"),
)


@pytest.fixture(scope="module")
def reduced(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run whose learning rate is reduced several times, down to the floor."""
    return warm.train(tmp_path_factory.mktemp("plateau") / "run", *PLATEAU)


def test_plateau_reduces(reduced: Run):
    """The rate is halved after evaluations that do not improve, and ends at the floor."""
    rates = [row["learning_rate"] for row in reduced.rows("train")]
    assert sorted({round(rate / rates[0], 6) for rate in rates}) == [0.3, 0.5, 1.0]
    assert rates == sorted(rates, reverse=True)
    assert reduced.outcome.out.count("learning rate reduced to") == 2
    assert "learning rate reduced to 0.0005" in reduced.outcome.out


@pytest.mark.parametrize("jit", ["step", "loop"])
def test_plateau_under_xla(warm: Warm, reduced: Run, tmp_path: Path, jit: str):
    """The compiled loop reads the factor in each call, and is not traced again."""
    run = warm.train(tmp_path / "run", *PLATEAU, "--model=logistic", f"--jit={jit}")
    rates = [row["learning_rate"] for row in run.rows("train")]
    assert len(set(rates)) > 1 and run.result["traces"]["train"] == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_plateau_after_an_interruption(warm: Warm, reduced: Run, tmp_path: Path, number):
    with warm.started(f"--run_dir={tmp_path / 'run'}", *PLATEAU) as process:
        await_rows(process, tmp_path / "run", 60)
        process.send_signal(number)
        process.wait(HANG)
    warm.train(tmp_path / "run", *PLATEAU)
    assert differences(reduced.run_dir, tmp_path / "run") == []


def test_plateau_on_devices(warm: Warm, tmp_path: Path):
    """On one and on two devices with shards, the decisions and bits are the same."""
    options = (*PLATEAU, "--shards=2", "--epochs=4")
    one, two = (
        warm.train(tmp_path / str(n), *options, "--strategy=cpu", f"--virtual_devices={n}")
        for n in (1, 2)
    )
    assert differences(one.run_dir, two.run_dir) == []
    assert "learning rate reduced" in two.outcome.out
