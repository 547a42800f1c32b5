"""Steps taken as a run takes them, with all that it does between two calls of the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from engine.assembly import Parts
from engine.keeping.clock import Clock
from engine.loop import Loop
from engine.points import Point, Points
from engine.startup import Startup
from engine.training.advance import Advance
from engine.training.guard import guard_of
from engine.workers.crew import Crew
from pipelines import Stream


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
        guard = guard_of(parts)
        clock = Clock(self._state.times, "", writes=False)
        self._advance = Advance(own, guard, clock, Crew(), Startup(), lambda line: None)

    @property
    def read_ahead(self) -> int:
        """Steps that cost no reading, because it was done in a pause before them; 0: none."""
        feed = self._parts.feeds.training
        return feed.ahead if isinstance(feed, Stream) else 0

    def take(self, steps: int, *, point: bool = False) -> list[Point]:
        """Takes so many, epoch by epoch.

        Args:
          steps: how many.
          point: whether the last one is a point of the curves.

        Returns:
          That point, if there is one.

        Raises:
          Interrupted: when it was asked to stop.
          RuntimeError: when one goes wrong.
        """
        points: list[Point] = []
        end = int(self._state.step) + steps
        at = Points(last=end) if point else Points()
        while (step := int(self._state.step)) < end:
            if self._interrupted():
                raise Interrupted
            to_end = self._parts.steps_per_epoch - step % self._parts.steps_per_epoch
            passed = self._advance.go(min(end - step, to_end), at)
            if (fault := passed.fault) is not None:
                raise RuntimeError(
                    f"step {fault.step:,} went wrong ({fault.why.words}): what is measured has to "
                    "train"
                )
            points += passed.points
        return points
