"""Tests that errors of collected metrics, computed from a whole split, are one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Warm

LOAD = f"--load={Path(__file__).with_name('ordered_rank.py')}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--metrics=ordered_rank", "--monitor=train_ordered_rank"),
            "--monitor=train_ordered_rank: only evaluation computes it, from a whole split; give "
            "--monitor=validation_ordered_rank",
        ),
        (
            ("--metrics=large_rank",),
            "metric large_rank collects 6,336 bytes of 144 examples, more than max_bytes=1,000: ",
        ),
    ],
)
def test_refused_before_training(warm: Warm, tmp_path: Path, options: tuple, message: str):
    run_dir = tmp_path / "run"
    outcome = warm.run(f"--run_dir={run_dir}", LOAD, "--model=logistic", "--epochs=1", *options)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.said()
    assert message in outcome.err
    assert not run_dir.exists()


def test_function_fails(warm: Warm, tmp_path: Path):
    """An error in a metric's function is one line with file and line number, in all modes."""
    options = (f"--run_dir={tmp_path / 'run'}", LOAD)
    outcome = warm.run(*options, "--model=logistic", "--epochs=1", "--metrics=failing_rank")
    assert outcome.status == 2, outcome.said()
    message = "error: metric failing_rank: ordered_rank.py:22: IndexError: "
    assert outcome.err.startswith(message) and outcome.err.count("\n") == 1
    outcome = warm.run(*options, "--mode=evaluate")
    assert outcome.status == 2 and outcome.err.startswith(message), outcome.said()
