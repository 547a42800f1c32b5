"""TensorFlow's profiler around some steps of a run; TensorBoard's page "Profile" shows it."""

from __future__ import annotations

import os

import tensorflow as tf

from engine.points import NEVER
from pipelines import reason


class Profiler:
    """Records the steps that `--profile` asks for, once.

    Args:
      steps: (first, past the last); (0, 0): none.
      run_dir: whose tensorboard/ it goes to.
      writes: whether this process does.
    """

    def __init__(self, steps: tuple[int, int], run_dir: str, writes: bool = True) -> None:
        self._first, self._end = steps if writes else (0, 0)
        self._directory = os.path.join(run_dir, "tensorboard", "profile")
        self._on = False

    def until(self, step: int) -> int:
        """Steps from `step` that one call may take, so that it ends where recording does."""
        ahead = [place - step for place in (self._first, self._end) if place > step]
        return min(ahead, default=NEVER) if self._end else NEVER

    def at(self, step: int) -> str:
        """Starts or stops at a step; a line about it for a person, empty where nothing changed.

        Raises:
          OSError: when it cannot be written.
        """
        if not self._on and self._first <= step < self._end:
            tf.profiler.experimental.start(self._directory)
            self._on = True
            return ""
        if self._on and not self._first <= step < self._end:
            return self.stop()
        return ""

    def stop(self) -> str:
        """Stops, if it records, and writes what there is."""
        if not self._on:
            return ""
        self._on = False
        try:
            tf.profiler.experimental.stop()
        except tf.errors.OpError as error:
            raise OSError(f"cannot write the profile: {reason(error)}") from error
        return f"profile {self._directory}: steps {self._first:,} to {self._end:,}"
