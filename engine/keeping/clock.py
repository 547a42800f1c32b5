"""Steps per second, and goodput: what of the time since the first start went into steps."""

from __future__ import annotations

import time

from engine.state import Times


class Clock:
    """Measures this process and adds to what the state remembers.

    Args:
      times: in the state, so that a restart goes on counting.
    """

    def __init__(self, times: Times) -> None:
        self._times = times
        self._calls = 0
        if not float(times.first_start):
            times.first_start.assign(time.time())

    def loop_took(self, steps: int, seconds: float) -> None:
        """Counts one call of the training loop; a process's first is not in the rate: it traces."""
        self._times.training.assign_add(seconds)
        self._times.last_step.assign(time.time())
        self._calls += 1
        if self._calls > 1:
            self._times.steady.assign_add(seconds)
            self._times.steady_steps.assign_add(steps)

    @property
    def steps_per_second(self) -> float:
        """Over all steady calls since the first start; 0 when there was none."""
        seconds = float(self._times.steady)
        return int(self._times.steady_steps) / seconds if seconds else 0.0

    @property
    def train_seconds(self) -> float:
        """Seconds inside the training loop since the first start, tracing included."""
        return float(self._times.training)

    @property
    def goodput(self) -> float:
        """train_seconds over the wall time from the first start to the last step, in 0 to 1."""
        wall = float(self._times.last_step) - float(self._times.first_start)
        return min(1.0, self.train_seconds / wall) if wall > 0 else 0.0
