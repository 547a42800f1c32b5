"""`--deterministic` is told at the start and in result.json, and is a part of the trajectory."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command import Warm

SHORT = ("--dataset=digits", "--model=logistic", "--train_steps=4")


def test_what_is_given_up_is_said(warm: Warm, tmp_path: Path):
    run = warm.train(tmp_path / "run", *SHORT, "--deterministic=no")
    told = "--deterministic=no gives up the same bits: on a GPU, two runs of one seed differ by"
    (line,) = (line for line in run.outcome.out.splitlines() if "--deterministic" in line)
    assert line.strip().startswith(told)
    assert run.result["deterministic"] is False
    assert run.result["given_up"].startswith("the same bits: on a GPU, two runs of one seed")
    # On a CPU, op determinism stays enabled.
    other = warm.train(tmp_path / "other", *SHORT)
    assert run.result["weights_sha256"] == other.result["weights_sha256"]
    assert other.result["deterministic"] is True and "given_up" not in other.result
    assert "--deterministic" not in other.outcome.out


def test_resume(warm: Warm, tmp_path: Path):
    """`result.json` speaks of all steps, so that a run keeps its value; auto and yes are one."""
    directory = f"--run_dir={tmp_path / 'run'}"
    warm.train(tmp_path / "run", *SHORT)
    outcome = warm.run(directory, *SHORT, "--train_steps=6", "--deterministic=no")
    assert outcome.status == 2, outcome.said()
    assert "--deterministic=no (was auto)" in outcome.err
    resumed = warm.train(tmp_path / "run", *SHORT, "--train_steps=6", "--deterministic=yes")
    assert resumed.result["step"] == 6 and resumed.result["deterministic"] is True
