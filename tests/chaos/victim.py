"""Runs the command in a forked child and sends it a signal at a chosen instant.

The parent has imported TensorFlow but not initialized it, so that a child starts a new run without
the seconds of that import. An instant is a time since the start, or the entry or exit of the nth
call of a function.
"""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HANG = 300  # seconds after which a child counts as hung

# phase -> (module, class or "", function); entry and exit of the function are instants.
PLACES = {
    "start": [
        ("engine.assembly.data", "", "open_source"),
        ("engine.trainer.trainer", "Trainer", "start"),
    ],
    "first trace": [
        ("engine.core.loop", "Loop", "_traced"),
        ("engine.core.evaluation", "Evaluation", "_steps"),
    ],
    "loop": [("engine.core.loop", "Loop", "run")],
    "save": [("os", "", "fsync"), ("engine.checkpoint.manager", "CheckpointManager", "_write")],
    "moving files": [("os", "", "replace"), ("os", "", "unlink")],
    "evaluation": [("engine.core.evaluation", "Evaluation", "run")],
    "logging": [
        ("engine.logging.metric_writer", "MetricWriter", "write"),
        ("engine.logging.metric_writer", "MetricWriter", "_draw"),
    ],
    "rewinding": [("engine.logging.event_file", "", "rewind")],
    "report": [
        ("engine.trainer.finalize", "Finalizer", "_report"),
        ("engine.logging.run_summary", "", "show"),
    ],
    "exit": [
        ("engine.trainer.result", "", "write"),
        ("engine.trainer.trainer", "Trainer", "close"),
    ],
}


class Instant(NamedTuple):
    """The instant at which a child gets its signal.

    Attributes:
      phase: one of PLACES; "any" or "a fresh process" for a time.
      place: index into the phase's functions; -1 for a time.
      nth: number of the call of the function, from 1.
      entered: whether the signal is sent on entry of the function; else on exit.
      seconds: seconds since the start, for a time.
    """

    phase: str
    place: int = -1
    nth: int = 1
    entered: bool = True
    seconds: float = 0.0


class Ended(NamedTuple):
    """The result of a child process.

    Attributes:
      status: exit status; the negative number of a signal if that ended the process.
      said: standard output and standard error.
      hung: whether the process was killed because it did not end in time.
    """

    status: int
    said: str
    hung: bool = False


def run(
    arguments: list[str],
    said: Path,
    number: int,
    instant: Instant | None,
    *,
    hang: float = HANG,
) -> Ended:
    """Runs the command in a forked child, and sends a signal to the child; returns the result.

    Args:
      arguments: arguments of the command.
      said: file for the output.
      number: number of the signal to send.
      instant: when to send the signal; None: never.
      hang: seconds after which the child is killed.
    """
    child = begin(arguments, said, lambda: _set(instant, number) if instant else None)
    started = time.monotonic()
    sent = instant is None or instant.place >= 0
    passed = 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            hung = passed > hang
            return Ended(os.waitstatus_to_exitcode(status), said.read_text(), hung)
        passed = time.monotonic() - started
        if instant is not None and not sent and passed >= instant.seconds:
            os.kill(child, number)
            sent = True
        if passed > hang:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def begin(arguments: list[str], said: Path, prepare: Callable[[], object]) -> int:
    """Starts the command in a forked child; returns the child's process ID.

    In the child, this function does not return: the child exits with the command's status.

    Args:
      arguments: arguments of the command.
      said: file for standard output and standard error.
      prepare: called in the child before the command.
    """
    gc.freeze()
    child = os.fork()
    if child:
        return child
    to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(to, descriptor)
    from tapeline import command

    prepare()
    sys.exit(command.main(arguments))


def _set(instant: Instant, number: int) -> None:
    if instant.place < 0:
        return
    module, owner, name = PLACES[instant.phase][instant.place]
    target = sys.modules[module]
    if owner:
        target = getattr(target, owner)
    calls = 0

    def struck(function: Callable) -> Callable:
        @functools.wraps(function)
        def called(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            now = calls == instant.nth
            if now and instant.entered:
                os.kill(os.getpid(), number)
            try:
                return function(*arguments, **named)
            finally:
                if now and not instant.entered:
                    os.kill(os.getpid(), number)

        return called

    setattr(target, name, struck(getattr(target, name)))
