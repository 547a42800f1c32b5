"""A process of `engine.tune.contestant`, which trains when it is asked to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import engine

_BLOCK_SECONDS = 0.4  # approximate


class MeasuredProcess:
    """A process that trains with given options and measures the steps per second.

    Args:
      options: command-line options of the training.
      environment: environment variables that are set in the process.

    Attributes:
      rates: steps per second of each block; 0 if the process failed.
      metadata: first answer of the process, see `engine.tune.contestant`; {} before `ready`.
      error: why the process cannot train; "" if it can.
    """

    def __init__(self, options: Sequence[str], environment: Mapping[str, str] | None = None):
        self.rates: list[float] = []
        self.metadata: dict[str, Any] = {}
        self.error = ""
        root = os.path.dirname(os.path.dirname(os.path.abspath(engine.__file__)))
        search_path = filter(None, [root, os.environ.get("PYTHONPATH")])
        own = {"PYTHONPATH": os.pathsep.join(search_path), **(environment or {})}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.tune.contestant", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **own},
            start_new_session=True,  # Ctrl-C reaches the parent process only
        )

    def ready(self) -> bool:
        """Waits until the process can train or has failed; returns whether it can.

        Also sets `metadata` and `error`.
        """
        self.metadata = self._answer()
        self.error = self.metadata.get("error", "")
        return not self.error

    def measure(self, seconds: float = _BLOCK_SECONDS) -> None:
        """Measures a block of steps of about `seconds`; appends the steps/s to `rates`.

        If the process fails, appends 0 and sets `error`.
        """
        answer: dict[str, Any] = {"error": "the process ended"}
        with contextlib.suppress(BrokenPipeError):  # the process has ended
            print(seconds, file=self._process.stdin, flush=True)
            answer = self._answer()
        self.error = self.error or answer.get("error", "")
        self.rates.append(0.0 if "error" in answer else answer["steps"] / answer["seconds"])

    def close(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}
