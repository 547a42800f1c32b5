"""Signals, and one writer for a run directory."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """While entered, SIGINT and SIGTERM are noted instead of ending the process.

    After the first one the system's own handling is back, so that a second one ends the process
    at once; what is on disk stays whole, because every write there is atomic.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the signal, 0: none
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
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
        for other in _SIGNALS:
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
        """128 + the signal's number: 130 for SIGINT, 143 for SIGTERM; 0: none came."""
        return 128 + self.received if self.received else 0


class RunLock:
    """Holds a run directory for one process, while entered.

    The system takes the lock away when its holder ends, however it ends, so none is left behind.

    Args:
      run_dir: locked on entering if it exists, else by `take` once it does.
      taken: whether it is at all; of several workers one holds it for all.
    """

    def __init__(self, run_dir: str, taken: bool = True) -> None:
        self._run_dir, self._taken = run_dir, taken
        self._path = os.path.join(run_dir, "lock")
        self._file: int | None = None

    def __enter__(self) -> RunLock:
        if self._taken and os.path.isdir(self._run_dir):
            self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            os.unlink(self._path)  # while it is held: nobody else can have taken this file
            os.close(self._file)

    def take(self) -> None:
        """Takes the lock, if it is not held already.

        Raises:
          ValueError: when another process holds it, naming it.
        """
        if self._file is not None:
            return
        while self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
                os.close(file)
                raise ValueError(
                    f"--run_dir={self._run_dir} is in use by {holder}: wait for it, or give another"
                ) from None
            # Between opening and locking, a holder may have finished and taken its file away.
            if os.path.exists(self._path) and os.path.samestat(os.stat(self._path), os.fstat(file)):
                self._file = file
            else:
                os.close(file)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(self._file, 0)
        os.write(
            self._file, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode()
        )
