"""A few of the sequences of commands that `python -m tests.chaos.sequences` checks."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.sequences import run


def test_the_last_command_of_any_sequence_decides_what_is_there(tmp_path: Path):
    checked = run(5, 7, tmp_path)
    assert checked.outcomes["ended"] >= 5
