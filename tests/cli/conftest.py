"""Fixtures of the command-line tests: runners of run.py, and runs that several tests read."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from engine.checkpoint.catalog import newest_checkpoint, read_metadata
from tests.cli.command import HANG, LONG, Command, Interrupted, Outcome, Run, Warm, rows_of


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory, cache_dir: str) -> Command:
    """Returns a runner that starts a new process for each call."""
    return Command(tmp_path_factory.mktemp("home"), cache_dir)


@pytest.fixture(scope="session")
def warm(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Yields a runner whose processes are forked after TensorFlow's import, which saves seconds."""
    with command.warmed(tmp_path_factory.mktemp("warm")) as warm:
        yield warm


@pytest.fixture(scope="session")
def whole(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run with the options `LONG` that was not interrupted."""
    return warm.train(tmp_path_factory.mktemp("whole") / "run", *LONG)


@pytest.fixture(scope="session")
def killed(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """Returns a run of `LONG` that was killed 10 or more steps after a checkpoint, and resumed."""
    run_dir = tmp_path_factory.mktemp("killed") / "run"
    options = [*LONG, "--checkpoint_every=0"]  # one checkpoint an epoch
    with warm.started(f"--run_dir={run_dir}", *options) as process:
        end = time.monotonic() + HANG
        while True:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
            if not newest_checkpoint(str(run_dir)):
                continue
            process.send_signal(signal.SIGSTOP)  # so that files do not change during the check
            rows = rows_of(run_dir)
            saved = read_metadata(newest_checkpoint(str(run_dir)) or "")["step"]
            if saved and rows[-1]["step"] >= saved + 10:
                break
            process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=HANG)
    left = [path.name for path in run_dir.iterdir()]
    stopped = Outcome(process.wait(), out, err)
    return Interrupted(stopped, left, saved, rows, warm.train(run_dir, *options))
