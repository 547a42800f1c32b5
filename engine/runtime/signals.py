"""Signal handling: the first signal requests a graceful stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Context manager that records SIGINT, SIGTERM or SIGHUP, which then does not end the process.

    A signal that the process was started to ignore, as under nohup, stays ignored. The first signal
    restores the system's default handlers, so that a second one ends the process at once; files
    stay intact, because every write is atomic. Outside the main thread, no signal is recorded.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the received signal; 0: none
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)

    def agree(self, max_over_workers: Callable[[int], int]) -> int:
        """Returns the highest signal number that any worker received; 0 if none did.

        Every worker must call this method, which stores the number in `received` unless it is 0.
        `max_over_workers` returns the maximum of an integer over all workers.
        """
        agreed = max_over_workers(self.received)
        if agreed:  # a signal received during the call is not overwritten with 0
            self.received = agreed
        return agreed

    @property
    def exit_status(self) -> int:
        """Exit status: 128 + received signal (SIGINT 130, SIGTERM 143, SIGHUP 129); 0 if none."""
        return 128 + self.received if self.received else 0
