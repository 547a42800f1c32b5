"""Kills runs, twice in each test; `python -m tests.chaos` kills runs hundreds of times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.choices import seldom


@pytest.mark.parametrize(
    "options",
    [
        seldom(("--signal=KILL", "--seed=1")),
        ("--signal=KILL", "--seed=2", "--virtual_devices=2", "--feed=stream"),
        seldom(("--signal=TERM", "--seed=3")),
    ],
    ids=["kill", "kill-replicas-stream", "term"],
)
def test_killed_runs_keep_bits(options):
    """Runs that are killed and resumed are bitwise equal to an uninterrupted run."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--kills=2", *options],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert "end as the untouched one, after 2 kills" in ran.stdout.splitlines()[-1]
