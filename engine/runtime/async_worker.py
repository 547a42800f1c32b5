"""A background thread for work that the training loop does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple


class _Job(NamedTuple):
    call: Callable[[], object]
    replaceable: bool


class AsyncWorker:
    """Runs jobs in a background thread, in order; the queue holds at most one job.

    The first exception that a job raises is stored; the next call of `put`, `check` or `finish`
    raises it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: _Job | None = None
        self._busy = False
        self._ending = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, call: Callable[[], object], *, replaceable: bool) -> None:
        """Queues a job; replaces a replaceable queued job, or waits until a queued job has started.

        Args:
          call: job to run.
          replaceable: whether a later job may replace this one while it is queued.

        Raises:
          Exception: the exception that an earlier job raised.
        """
        with self._changed:
            while self._waiting is not None and not self._waiting.replaceable:
                self._changed.wait()
            self.check()
            self._waiting = _Job(call, replaceable)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="background")
                self._thread.start()
            self._changed.notify_all()

    def check(self) -> None:
        """Raises the first exception that a job has raised since the last check, if any."""
        with self._changed:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self) -> None:
        """Waits until all jobs are done, then calls `check`."""
        with self._changed:
            while self._busy or self._waiting is not None:
                self._changed.wait()
        self.check()

    def close(self) -> None:
        """Waits until all jobs are done, then ends the thread; does not raise their exceptions."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._ending = False

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._ending:
                    self._changed.wait()
                if self._waiting is None:
                    return
                job, self._waiting, self._busy = self._waiting, None, True
                self._changed.notify_all()
            error: BaseException | None = None
            try:
                job.call()
            except BaseException as raised:
                error = raised
            with self._changed:
                self._error = self._error or error
                self._busy = False
                self._changed.notify_all()
