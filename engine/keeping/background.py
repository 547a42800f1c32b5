"""A thread that does what the training loop should not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple


class _Job(NamedTuple):
    call: Callable[[], object]
    gives_way: bool


class Background:
    """Does jobs one after the other, in the order in which they came; one may wait.

    What a job raises is kept, and raised where the loop asks for it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: _Job | None = None
        self._busy = False
        self._ending = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, call: Callable[[], object], *, gives_way: bool) -> None:
        """Has a job done. Where one waits already that does not give way, waits for that.

        Args:
          call: the job.
          gives_way: whether a later job takes its place while it waits.

        Raises:
          Exception: what an earlier job raised.
        """
        with self._changed:
            while self._waiting is not None and not self._waiting.gives_way:
                self._changed.wait()
            self.check()
            self._waiting = _Job(call, gives_way)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="background")
                self._thread.start()
            self._changed.notify_all()

    def check(self) -> None:
        """Raises what a job raised since the last time, if any did."""
        with self._changed:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self) -> None:
        """Waits until all is done, then as `check`."""
        with self._changed:
            while self._busy or self._waiting is not None:
                self._changed.wait()
        self.check()

    def close(self) -> None:
        """Waits until all is done and ends the thread; what failed is for `finish` to tell."""
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
