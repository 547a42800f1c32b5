"""The command, with a home and a cache of this session's own; and runs that several files need."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.cli.command import HANG, Command, Interrupted, Outcome, Run, Warm, await_rows

# 81 steps an epoch; dropout, shuffling, and a metric that is not best at the end of every epoch.
LONG = ("--global_batch_size=16", "--epochs=6", "--log_every=5", "--checkpoint_every=30")


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory, cache_dir: str) -> Command:
    """Tapeline's command, as a process."""
    return Command(tmp_path_factory.mktemp("home"), cache_dir)


@pytest.fixture(scope="session")
def warm(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """The same, without the seconds that TensorFlow's import takes."""
    with command.warmed(tmp_path_factory.mktemp("warm")) as warm:
        yield warm


@pytest.fixture(scope="session")
def whole(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of `LONG` that nothing has stopped."""
    return warm.train(tmp_path_factory.mktemp("whole") / "run", *LONG)


@pytest.fixture(scope="session")
def interrupted_by(
    command: Command, warm: Warm, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[signal.Signals], Interrupted]:
    """Gives a run of `LONG` that a signal stopped; each signal's is made once."""
    made: dict[signal.Signals, Interrupted] = {}

    def by(number: signal.Signals) -> Interrupted:
        if number not in made:
            run_dir = tmp_path_factory.mktemp(number.name) / "run"
            with command.started(f"--run_dir={run_dir}", *LONG) as process:
                await_rows(process, run_dir, 8)
                process.send_signal(number)
                out, err = process.communicate(timeout=HANG)
            stopped = Outcome(process.returncode, out, err)
            left = sorted(path.name for path in run_dir.iterdir())
            made[number] = Interrupted(stopped, left, warm.train(run_dir, *LONG))
        return made[number]

    return by
