"""Tests of the command on macOS, and on systems without fcntl.

Both are simulated on Linux: functions and files are hidden from a process.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.benchmark import machine
from tests.cli.command import LONG, Command, Run, await_rows

WITHOUT = """
import builtins, io, os, time

for name in (
    "sched_getaffinity", "sched_setaffinity", "fdatasync", "posix_fadvise", "posix_fallocate",
    "memfd_create", "copy_file_range", "eventfd", "pidfd_open", "getrandom", "O_TMPFILE",
):
    if hasattr(os, name):
        delattr(os, name)
del time.CLOCK_BOOTTIME
sysconf = os.sysconf

def without_free_pages(name):
    if name == "SC_AVPHYS_PAGES":
        raise ValueError("unrecognized configuration name")
    return sysconf(name)

os.sysconf = without_free_pages
opened = open

def without_proc(file, *arguments, **options):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", str(file))
    return opened(file, *arguments, **options)

builtins.open = io.open = without_proc
"""


@pytest.fixture
def as_on_macos(tmp_path: Path) -> dict[str, str]:
    """Returns environment variables that hide functions and /proc, as on macOS, from a process."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT)
    return {"PYTHONPATH": str(tmp_path / "site")}


def test_simulated_macos(command: Command, as_on_macos: dict[str, str], tmp_path: Path):
    """A run trains, resumes after a SIGKILL to bitwise equal weights, predicts, and reports."""

    def done(*arguments: str) -> str:
        outcome = command.run(*arguments, **as_on_macos)
        assert (outcome.status, outcome.err) == (0, ""), outcome.said()
        return outcome.out

    done(f"--run_dir={tmp_path / 'whole'}", *LONG)
    killed = f"--run_dir={tmp_path / 'killed'}", *LONG
    with command.started(*killed, **as_on_macos) as process:
        await_rows(process, tmp_path / "killed", 20)
        process.kill()
    done(*killed)
    whole, resumed = Run(tmp_path / "whole", None), Run(tmp_path / "killed", None)
    assert resumed.result["restarts"] == 1
    assert resumed.result["weights_sha256"] == whole.result["weights_sha256"]
    assert resumed.curves == whole.curves
    of_run = f"--run_dir={tmp_path / 'whole'}"
    said = done("--mode=predict", of_run, "--split=test[:5]")
    assert json.loads(said.splitlines()[-1])["predicted"] == 5
    done("--mode=report", of_run)
    assert (tmp_path / "whole" / "report.html").exists()


def test_without_fcntl(command: Command, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['fcntl'] = None")
    outcome = command.run("--help", PYTHONPATH=str(tmp_path))
    assert (outcome.status, outcome.out) == (2, ""), outcome.said()
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: Tapeline needs Linux or macOS") and "WSL2" in line


@pytest.mark.parametrize(("system", "unit"), [("linux", 1 << 10), ("darwin", 1)])
def test_peak_memory_unit(monkeypatch, system: str, unit: int):
    usage = type("Usage", (), {"ru_maxrss": (300 << 20) // unit})
    monkeypatch.setattr(machine.sys, "platform", system)
    monkeypatch.setattr(machine.resource, "getrusage", lambda who: usage)
    assert machine.peak_rss_mb() == 300
