"""One process writes to a run directory; a killed one leaves no lock behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.keeping.lock import RunLock

REPOSITORY = Path(__file__).resolve().parents[2]


def test_one_run_dir_has_one_writer_and_the_second_is_told_who(tmp_path):
    with RunLock(str(tmp_path)), pytest.raises(ValueError, match=f"process {os.getpid()} "):
        RunLock(str(tmp_path)).take()


def test_a_lock_is_gone_with_its_holder_and_leaves_nothing_behind(tmp_path):
    with RunLock(str(tmp_path)):
        assert (tmp_path / "lock").exists()
    assert list(tmp_path.iterdir()) == []
    with RunLock(str(tmp_path)):
        pass


def test_a_killed_holder_does_not_keep_its_lock(tmp_path):
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from engine.keeping.lock import RunLock\n"
        "with RunLock(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(REPOSITORY), str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "lock").exists()
    with RunLock(str(tmp_path)):
        pass


def test_a_run_dir_that_is_not_there_yet_is_locked_once_it_is(tmp_path):
    run_dir = tmp_path / "later"
    with RunLock(str(run_dir)) as lock:
        run_dir.mkdir()
        lock.take()
        with pytest.raises(ValueError, match="in use"):
            RunLock(str(run_dir)).take()
