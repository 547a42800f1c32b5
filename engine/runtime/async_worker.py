"""A background thread for work that the training loop does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable


class AsyncWorker:
    """Background thread that runs jobs in order; its queue holds at most one job.

    The first exception that a job raises is stored; the next call of `put`, `check` or `finish`
    raises it. The thread ends when no job is left; the next job starts another.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queued: Callable[[], object] | None = None
        self._replaceable = False  # whether a later job may replace the queued one
        self._running = False  # whether a thread takes jobs from the queue
        self._error: BaseException | None = None

    def put(self, job: Callable[[], object], *, replaceable: bool) -> None:
        """Queues a job; replaces a replaceable queued job, or waits until a queued job has started.

        Args:
          job: function without arguments.
          replaceable: whether a later job may replace this one while it is queued.

        Raises:
          Exception: the exception that an earlier job raised; the new job is not queued then.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queued is None or self._replaceable)
            self.check()
            self._queued, self._replaceable = job, replaceable
            if not self._running:
                threading.Thread(target=self._work, daemon=True, name="background").start()
                self._running = True

    def check(self) -> None:
        """Raises the first exception that a job has raised since the last check, if any."""
        with self._changed:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self) -> None:
        """Waits until all jobs are done, then raises their first exception, as `check` does."""
        self.close()
        self.check()

    def close(self) -> None:
        """Waits until all jobs are done and the thread ends; does not raise their exceptions."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def _work(self) -> None:
        while True:
            with self._changed:
                job, self._queued = self._queued, None
                self._running = job is not None
                self._changed.notify_all()
            if job is None:
                return
            try:
                job()
            except BaseException as error:
                with self._changed:
                    self._error = self._error or error
