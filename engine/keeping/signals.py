"""Signals: the first one asks for a polite stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """While entered, SIGINT, SIGTERM and SIGHUP are noted instead of ending the process.

    One that the process was started to ignore, as by nohup, it goes on to ignore.

    After the first one the system's own handling is back, so that a second one ends the process
    at once; what is on disk stays whole, because every write there is atomic.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the signal, 0: none
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)

    def agree(self, most: Callable[[int], int]) -> int:
        """The signal that any worker received; all take it for theirs.

        Args:
          most: the greatest of what all workers give.
        """
        agreed = most(self.received)
        if agreed:  # a signal that came while they were asked is not written over: it is for later
            self.received = agreed
        return agreed

    @property
    def exit_status(self) -> int:
        """128 + the signal's number: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP; 0: none."""
        return 128 + self.received if self.received else 0
