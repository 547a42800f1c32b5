"""Choice of the number of training or evaluation steps in one call of a `tf.function`."""

from __future__ import annotations

import time
from collections.abc import Callable


class StepsPerLoop:
    """Number of steps per call of the graph, adapted to the durations of earlier calls.

    Signals are handled and progress is shown between two calls, so a call should take about
    `seconds`. The first call, which compiles the graph, takes a single step unless the number is
    fixed.

    Args:
      steps_per_loop: fixed number of steps per call; 0: as many as take `seconds`.
      seconds: target duration of a call, in seconds.
      agree: converts the number of steps of this worker to the one number that all workers take.

    Raises:
      ValueError: if `steps_per_loop` is negative.
    """

    def __init__(
        self,
        steps_per_loop: int,  # fixed number of steps per call; 0: as many as take `seconds`
        seconds: float = 0.5,
        agree: Callable[[int], int] = lambda steps: steps,  # makes them the same on all workers
    ) -> None:
        if steps_per_loop < 0:
            raise ValueError(f"steps_per_loop is {steps_per_loop}: must be at least 0")
        self._fixed, self._seconds, self._agree = steps_per_loop, seconds, agree
        self._steps = steps_per_loop or 1
        self._calls = 0

    def steps(self, max_steps: int) -> int:
        """Returns the number of steps of the next call, 1 to `max_steps`, the same on all workers.

        Raises:
          ValueError: if `max_steps` is below 1.
        """
        if max_steps < 1:
            raise ValueError(
                f"a call of at most {max_steps} steps was asked for: must be at least 1"
            )
        return self._agree(min(self._steps, max_steps))

    def took(self, steps: int, seconds: float) -> None:
        """Records the duration of a call, to which the number of steps of the next call is adapted.

        The number grows at most by a factor of 4 per call. The first call is ignored; if the number
        is fixed, all calls are.

        Args:
          steps: number of steps that the call took.
          seconds: duration of the call, in seconds.
        """
        self._calls += 1
        if not self._fixed and self._calls > 1:
            fitting = int(steps * self._seconds / max(seconds, 1e-6))
            self._steps = max(1, min(fitting, 4 * self._steps))  # limits the effect of an outlier


def stopwatch() -> float:
    """Returns the time of a monotonic clock, in seconds."""
    return time.perf_counter()
