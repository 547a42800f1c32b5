"""How many steps one call of the graph takes."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Learns how long a call may be.

    A signal is heard between two calls, and progress is shown then, so a call should take about
    `seconds`; the first one takes a single step, to be traced and timed. The length never changes
    what is computed.

    Args:
      steps_per_loop: a fixed number of steps, 1 or more; 0: as many as take `seconds`.
      seconds: that one call should take.
      agree: makes of each worker's number the one that all take.
    """

    def __init__(
        self,
        steps_per_loop: int,
        seconds: float = 0.5,
        agree: Callable[[int], int] = lambda steps: steps,
    ) -> None:
        if steps_per_loop < 0:
            raise ValueError(f"steps_per_loop is {steps_per_loop}: must be at least 0")
        self._fixed, self._seconds, self._agree = steps_per_loop, seconds, agree
        self._steps = steps_per_loop or 1
        self._calls = 0

    def steps(self, most: int) -> int:
        """Returns the steps of the next call, 1 to `most`.

        Raises:
          ValueError: when `most` is below 1: a call must take a step.
        """
        if most < 1:
            raise ValueError(f"a call of at most {most} steps was asked for: must be at least 1")
        return self._agree(min(self._steps, most))

    def took(self, steps: int, seconds: float) -> None:
        """Learns from a call of 1 step or more; the first is not counted, because it traces."""
        self._calls += 1
        if not self._fixed and self._calls > 1:
            fitting = int(steps * self._seconds / max(seconds, 1e-6))
            self._steps = max(1, min(fitting, 4 * self._steps))  # grow by steps: one may be a fluke


def stopwatch() -> float:
    """Seconds on a clock that never goes back."""
    return time.perf_counter()
