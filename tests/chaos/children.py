"""Runs commands in forked children of a process that has imported TensorFlow.

Run as a module, this file is the process that forks; `Children` is its client. The client itself
does not fork, because a test framework would mistake the exit of a child for that of the client.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.chaos.victim import HANG, Ended, Instant, run

REPOSITORY = Path(__file__).parents[2]


class Children:
    """Context manager that runs commands in forked children of one process.

    Args:
      place: directory for the output of the commands.
      hang: seconds after which a command counts as hung.
    """

    def __init__(self, place: Path, hang: float = HANG) -> None:
        self._said, self._hang = place / "said", hang
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.children"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, arguments: list[str], number: int = 0, seconds: float | None = None) -> Ended:
        """Runs a command, optionally interrupted by a signal; returns how it ended.

        Args:
          arguments: arguments of the command.
          number: number of the signal to send.
          seconds: time from the start to the signal; None: no signal.
        """
        asked = [arguments, str(self._said), number, seconds, self._hang]
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that forks has ended"
        return Ended(*json.loads(answer))


def _serve() -> None:
    from engine.runtime.startup import import_tensorflow

    import_tensorflow()
    import engine.trainer.command  # noqa: F401 - for the children

    for line in sys.stdin:
        arguments, said, number, seconds, hang = json.loads(line)
        instant = None if seconds is None else Instant("any", seconds=seconds)
        print(json.dumps(run(arguments, Path(said), number, instant, hang=hang)), flush=True)


if __name__ == "__main__":
    _serve()
