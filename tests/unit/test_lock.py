"""The lock of a run directory: one writer at a time; a kill releases it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runtime.lock import RunLock

REPOSITORY = Path(__file__).resolve().parents[2]


def test_refuses_second_writer(tmp_path):
    with RunLock(str(tmp_path)), pytest.raises(ValueError, match=f"process {os.getpid()} "):
        RunLock(str(tmp_path)).take()


def test_lock_is_released(tmp_path):
    with RunLock(str(tmp_path)):
        assert (tmp_path / "lock").exists()
    assert list(tmp_path.iterdir()) == []
    with RunLock(str(tmp_path)):
        pass


def test_killed_holder(tmp_path):
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from engine.runtime.lock import RunLock\n"
        "with RunLock(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(REPOSITORY), str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "lock").exists()
    with RunLock(str(tmp_path)):
        pass


def test_run_dir_created_later(tmp_path):
    run_dir = tmp_path / "later"
    with RunLock(str(run_dir)) as lock:
        run_dir.mkdir()
        lock.take()
        with pytest.raises(ValueError, match="in use"):
            RunLock(str(run_dir)).take()
