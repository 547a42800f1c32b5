"""Tests that a full or read-only disk stops a run with one error line and damages nothing."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.choices import seldom
from tests.cli.command import HANG, LONG, Run, Warm, await_rows
from tests.sameness import differences


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """Mounts a tmpfs at `place` for the block; skips the test if that is not possible.

    `size` is the capacity in the syntax of `mount`, such as "700k".
    """
    place.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        made = subprocess.run(asked, capture_output=True).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip(
            "no file system can be made here; test_checkpoint_file.py injects the error instead"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("size", [seldom("200k"), "700k", seldom("1200k")])
def test_disk_full_then_resume(warm: Warm, whole: Run, tmp_path: Path, size: str):
    """A full disk stops the run; with more space, the resumed run ends bitwise equal."""
    disk = tmp_path / "disk"
    with small_disk(disk, size):
        run_dir = disk / "run"
        outcome = warm.run(f"--run_dir={run_dir}", *LONG)
        assert outcome.status == 1, outcome.said()
        (line,) = outcome.err.splitlines()
        assert line.startswith("error: cannot ") and "No space left on device" in line
        assert not list(run_dir.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        resumed = warm.train(run_dir, *LONG)
        if size != "200k":  # too small even for the first checkpoint
            assert "resumed at step" in resumed.outcome.out
        assert differences(whole.run_dir, run_dir) == []


@pytest.mark.full
def test_disk_read_only_then_resume(warm: Warm, whole: Run, tmp_path: Path):
    """A read-only disk stops the run; the command fails until the disk is writable again."""
    disk = tmp_path / "disk"
    run_dir = disk / "run"
    with small_disk(disk, "64m"):
        with warm.started(f"--run_dir={run_dir}", *LONG) as process:
            await_rows(process, run_dir, 6)
            saved = str(run_dir / "checkpoints")  # no file in it is open, so a mount can hide it
            subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", saved], check=True)
            out, err = process.communicate(timeout=HANG)
            subprocess.run(["umount", saved], check=True)
        assert process.returncode == 1, (out, err)
        (line,) = err.splitlines()
        assert line.startswith("error: cannot ") and "Read-only file system" in line
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refused = warm.run(f"--run_dir={run_dir}", *LONG)
        assert (refused.status, refused.out) == (2, "")
        assert "is not writable" in refused.err
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        warm.train(run_dir, *LONG)
        assert differences(whole.run_dir, run_dir) == []
