"""Tests of `--mode=verify`, which checks the laws on a user's configuration."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from tests.cli.command import Outcome, Warm
from tests.cli.test_bad_input import contents, line_of
from tests.cli.test_flagfiles import FLAGFILES


def assert_certified(outcome: Outcome) -> dict:
    """Asserts that all laws hold; returns the certificate, decoded from JSON."""
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    *lines, text, last = outcome.out.splitlines()
    assert last.startswith("PASS: 8 laws hold"), outcome.said()
    assert lines[0].startswith("tapeline ")
    told = [line for line in lines if line.startswith("L")]
    certificate = json.loads(text)
    assert certificate["passed"] is True and certificate["broken"] == []
    assert sorted(line.split()[0] for line in told) == [law["law"] for law in certificate["laws"]]
    return certificate


def test_quickstart_certificate(warm: Warm, tmp_path: Path):
    """Verification of quickstart.flags passes, needs no run, and creates no run directory."""
    run_dir = tmp_path / "run"
    outcome = warm.run("--mode=verify", "--flagfile=quickstart.flags", f"--run_dir={run_dir}")
    certificate = assert_certified(outcome)
    assert certificate["config"]["global_batch_size"] == 64
    assert certificate["device"]["many"] == "2 virtual CPU devices, mirrored"
    assert not run_dir.exists()


@pytest.mark.full
def test_standardized_inputs(warm: Warm, tmp_path: Path):
    """Verification passes with `--scale=standardize`."""
    options = "--model=logistic", "--global_batch_size=32", "--scale=standardize"
    assert_certified(warm.run("--mode=verify", f"--run_dir={tmp_path / 'run'}", *options))


def test_verify_run_in_use(warm: Warm, tmp_path: Path):
    """In the directory of a locked run, verification writes only verify.json."""
    small = "--model=logistic", "--global_batch_size=32", "--train_steps=20"
    run = warm.train(tmp_path / "run", *small)
    with open(run.run_dir / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = contents(run.run_dir)
        outcome = warm.run(
            f"--flagfile={run.run_dir / 'config.flags'}", "--mode=verify", "--virtual_devices=4"
        )
    certificate = assert_certified(outcome)
    assert certificate["device"]["replicas"] == 4
    after = contents(run.run_dir)
    assert json.loads(after.pop("verify.json")) == certificate
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    {
        "--model=cnnn": ["--model=cnnn: choose one of", "did you mean 'cnn'"],
        "--train_split=nope": ["train_split", "'nope'", "train, test"],
        "--shards=2 --virtual_devices=3": ["--shards=2", "3 devices"],
    }.items(),
)
def test_bad_input(warm: Warm, tmp_path: Path, arguments: str, expected: list[str]):
    run_dir = tmp_path / "run"
    line = line_of(warm.run("--mode=verify", f"--run_dir={run_dir}", *arguments.split()))
    for words in expected:
        assert words in line
    assert not run_dir.exists()


@pytest.mark.full
@pytest.mark.data
@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_all_flagfiles_certified(warm: Warm, real_data: str, tmp_path: Path, path: Path):
    outcome = warm.run(
        "--mode=verify",
        f"--flagfile={path}",
        f"--data_dir={real_data}",
        f"--run_dir={tmp_path / 'run'}",
    )
    certificate = assert_certified(outcome)
    assert certificate["seconds"] < 90
    assert ("finds none" in outcome.out) == ("gpu" in path.name)
    assert ("stand in for the other machines" in outcome.out) == ("worker" in path.name)
