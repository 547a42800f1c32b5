"""Runs TensorFlow's profiler for a range of steps, for TensorBoard's "Profile" dashboard."""

from __future__ import annotations

import os

import tensorflow as tf

from engine.core.log_points import NEVER
from pipelines import reason


class Profiler:
    """Profiles the steps that `--profile` asks for, once.

    Args:
      steps: (first, one past the last); (0, 0): none.
      run_dir: run directory; the profile is written to its tensorboard/.
      writes: whether this process profiles.
    """

    def __init__(self, steps: tuple[int, int], run_dir: str, writes: bool = True) -> None:
        self._first, self._end = steps if writes else (0, 0)
        self._directory = os.path.join(run_dir, "tensorboard", "profile")
        self._on = False

    def until(self, step: int) -> int:
        """Returns how many steps a call may take so that it does not cross the range's ends."""
        ahead = [place - step for place in (self._first, self._end) if place > step]
        return min(ahead, default=NEVER) if self._end else NEVER

    def at(self, step: int) -> str:
        """Starts or stops profiling at a step; returns a line for the user when it stops, else "".

        Raises:
          OSError: if the profile cannot be written.
        """
        if not self._on and self._first <= step < self._end:
            tf.profiler.experimental.start(self._directory)
            self._on = True
            return ""
        if self._on and not self._first <= step < self._end:
            return self.stop()
        return ""

    def stop(self) -> str:
        """Stops profiling, if active, and writes the profile; returns and raises as `at`."""
        if not self._on:
            return ""
        self._on = False
        try:
            tf.profiler.experimental.stop()
        except tf.errors.OpError as error:
            raise OSError(f"cannot write the profile: {reason(error)}") from error
        return f"profile {self._directory}: steps {self._first:,} to {self._end:,}"
