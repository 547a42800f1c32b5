"""A disk that fills up stops a run with one line, and takes nothing of it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import LONG, Command, Run, Warm
from tests.sameness import differences


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system of so many bytes, where one can be made."""
    place.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        made = subprocess.run(asked, capture_output=True).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("no file system can be made here; test_archive.py injects the error instead")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("size", ["200k", "700k", "1200k"])
def test_a_disk_that_fills_up_stops_the_run_and_the_same_command_goes_on_when_there_is_room(
    command: Command, warm: Warm, whole: Run, tmp_path: Path, size: str
):
    disk = tmp_path / "disk"
    with small_disk(disk, size):
        run_dir = disk / "run"
        outcome = command.run(f"--run_dir={run_dir}", *LONG)
        assert outcome.status == 1, outcome.said()
        (line,) = outcome.err.splitlines()
        assert line.startswith("error: cannot ") and "No space left on device" in line
        assert not list(run_dir.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        resumed = warm.train(run_dir, *LONG)
        if size != "200k":  # there not even the first checkpoint had room
            assert "goes on from step" in resumed.outcome.out
        assert differences(whole.run_dir, run_dir) == []
