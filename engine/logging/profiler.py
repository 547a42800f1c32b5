"""Profiles a range of steps with TensorFlow's profiler, for TensorBoard's "Profile" dashboard."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf

from engine.core.log_points import NEVER
from pipelines import reason


class Profiler:
    """Controller that starts and stops TensorFlow's profiler for the steps given by `--profile`.

    Args:
      steps: range of steps to profile, as (first, one past the last); (0, 0): none.
      run_dir: run directory; profiles are written to run_dir/tensorboard/profile/.
      writes: whether to profile, True on one worker; on other workers, nothing is profiled.
    """

    def __init__(self, steps: tuple[int, int], run_dir: str, writes: bool = True) -> None:
        self._first, self._end = steps if writes else (0, 0)
        self._directory = os.path.join(run_dir, "tensorboard", "profile")
        self._active = False

    def until(self, step: int) -> int:
        """Returns the number of steps from `step` to the next start or stop; `NEVER` if none."""
        return min(
            (bound - step for bound in (self._first, self._end) if bound > step), default=NEVER
        )

    def at(self, step: int) -> str:
        """Starts or stops the profiler if due at `step`; returns a message if it stops, else "".

        Raises:
          OSError: if the profile cannot be written.
        """
        if not self._first <= step < self._end:
            return self.stop()
        if not self._active:
            with _as_os_error():
                tf.profiler.experimental.start(self._directory)
            self._active = True
        return ""

    def stop(self) -> str:
        """Stops the profiler, which writes the profile; returns a message, "" if it was inactive.

        Raises:
          OSError: if the profile cannot be written.
        """
        if not self._active:
            return ""
        self._active = False
        with _as_os_error():
            tf.profiler.experimental.stop()
        return f"profile {self._directory}: steps {self._first:,} to {self._end:,}"


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Converts `tf.errors.OpError` to OSError with a one-line message."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"cannot write the profile: {reason(error)}") from error
