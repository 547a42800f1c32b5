"""A run in a child of this process, which ends it at an instant that was chosen.

The parent has imported TensorFlow and started nothing of it, so that a child is a fresh run but for
the seconds of that import. An instant is a time since the start, or a place in the code: the nth
time that a function is entered, or left.
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

HANG = 300  # seconds after which a child is taken to hang

# phase -> (module, class or "", function) whose begin and end are instants of it.
PLACES = {
    "start": [
        ("engine.feeding", "", "open_source"),
        ("engine.training.trainer", "Trainer", "start"),
    ],
    "first trace": [
        ("engine.loop", "Loop", "_counted"),
        ("engine.evaluate", "Evaluation", "_steps"),
    ],
    "loop": [("engine.loop", "Loop", "run")],
    "save": [("os", "", "fsync"), ("engine.keeping.checkpoints", "Checkpoints", "_write")],
    "moving files": [("os", "", "replace"), ("os", "", "unlink")],
    "evaluation": [("engine.evaluate", "Evaluation", "run")],
    "logging": [
        ("engine.keeping.board", "Board", "write"),
        ("engine.keeping.board", "Board", "_draw"),
    ],
    "rewinding": [("engine.keeping.events", "", "rewind")],
    "report": [
        ("engine.training.ending", "Ending", "_report"),
        ("engine.keeping.showcase", "", "show"),
    ],
    "exit": [
        ("engine.training.result", "", "write"),
        ("engine.training.trainer", "Trainer", "close"),
    ],
}


class Instant(NamedTuple):
    """When a child ends.

    phase: one of PLACES, or "any" for a time.
    place: index in it; -1 for a time.
    nth: which time the function is called, from 1.
    entered: whether on entering it, or on leaving.
    seconds: since the start, for a time.
    """

    phase: str
    place: int = -1
    nth: int = 1
    entered: bool = True
    seconds: float = 0.0


class Ended(NamedTuple):
    """How a child ended: its exit status, negative for a signal, and what it printed.

    hung: whether it had to be killed because it did not end.
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
    """Runs the command in a child.

    Args:
      arguments: of the command.
      said: a file for what it prints.
      number: of the signal that it gets.
      instant: when; None: never.
      hang: seconds after which it is killed.
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
    """Starts the command in a child and returns its process id.

    Args:
      arguments: of the command.
      said: a file for what it prints, on both streams.
      prepare: called in the child before the command.
    """
    gc.freeze()
    child = os.fork()
    if child:
        return child
    to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(to, descriptor)
    import run

    prepare()
    sys.exit(run.main(arguments))


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
