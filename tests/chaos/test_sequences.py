"""Checks three random sequences of commands; `python -m tests.chaos.sequences` checks hundreds."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.sequences import run


def test_last_command_determines_run(tmp_path: Path):
    checked = run(3, 7, tmp_path)
    assert checked.outcomes["ended"] >= 3
