"""Steps taken as a run takes them, with all that it does between two calls of the graph."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from engine.advance import Advance
from engine.assembly import Parts
from engine.guard import Guard
from engine.keeping.clock import Clock
from engine.loop import Loop
from engine.workers.crew import Crew

_NO_POINT = 1 << 62


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Somebody asked to stop."""


class Stepper:
    """Takes steps of a loop.

    Args:
      parts: of the run.
      loop: over its state.
      interrupted: asked between two calls whether to stop.
    """

    def __init__(self, parts: Parts, loop: Loop, interrupted: Callable[[], bool]) -> None:
        self._parts, self._state, self._interrupted = parts, parts.state, interrupted
        own = dataclasses.replace(parts, loop=loop)
        guard = Guard(parts.config.guarding, self._state.loss_scale.dynamic, self._state.watch)
        clock = Clock(self._state.times, "", writes=False)
        self._advance = Advance(own, guard, clock, Crew(), time.monotonic(), lambda line: None)

    def take(self, steps: int, to_point: int = _NO_POINT) -> None:
        """Takes so many, epoch by epoch.

        Args:
          steps: how many.
          to_point: steps to a point of the curves, whose step is taken alone.

        Raises:
          Interrupted: when it was asked to stop.
          RuntimeError: when one goes wrong.
        """
        while steps > 0:
            if self._interrupted():
                raise Interrupted
            step = int(self._state.step)
            to_end = self._parts.steps_per_epoch - step % self._parts.steps_per_epoch
            fault = self._advance.go(min(steps, to_end), to_point)
            if fault is not None:
                raise RuntimeError(
                    f"step {fault.step:,} went wrong ({fault.why.words}): what is measured has to "
                    "train"
                )
            taken = int(self._state.step) - step
            steps, to_point = steps - taken, to_point - taken
