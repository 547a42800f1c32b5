"""Some steps further: one call of the graph, or past a step that is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine.assembly import Parts
from engine.keeping.clock import Clock
from engine.pace import Pace, stopwatch
from engine.points import Point, Points
from engine.startup import Startup
from engine.training.curves import standing
from engine.training.guard import Fault, Guard
from engine.training.inspection import Inspector
from engine.workers.crew import Crew


class Passed(NamedTuple):
    """What came of going on.

    steps: that are behind now; 0 or more of them were taken.
    fault: what went wrong in one of them, if anything did.
    points: of the curves, that were passed.
    """

    steps: int
    fault: Fault | None
    points: list[Point]


class Advance:
    """Takes a run's steps, times them, and has the guard look at each.

    Args:
      parts: of the run.
      guard: of the same state.
      clock: of the same state.
      crew: the workers; all take the same steps.
      startup: takes the start apart; its last parts, to the end of the first step, are taken here.
      tell: is given a line for a person now and then.
      inspector: records the steps that are left out; None: nothing is recorded.
    """

    def __init__(
        self,
        parts: Parts,
        guard: Guard,
        clock: Clock,
        crew: Crew,
        startup: Startup,
        tell: Callable[[str], None],
        inspector: Inspector | None = None,
    ) -> None:
        self.startup_seconds: dict[str, float] | None = None  # of its parts, after the first step
        self._parts, self._state, self._guard, self._clock = parts, parts.state, guard, clock
        self._startup, self._tell = startup, tell
        self._pace = Pace(parts.config.training.fixed_steps_per_loop, agree=crew.of_chief)
        self._inspector = inspector

    def go(self, most: int, points: Points) -> Passed:
        """Takes a step or more, or leaves one out.

        Args:
          most: steps, at most; 1 or more.
          points: which are points of the curves; one is ahead.

        Raises:
          ValueError: when no step is asked for.
        """
        step = int(self._state.step)
        if most < 1:
            raise ValueError(f"{most} steps were asked for at step {step}: must be 1 or more")
        to_left_out = self._guard.until_left_out(step)
        if not to_left_out:
            return self._leave_out(step, points)
        steps = self._pace.steps(min(most, to_left_out, points.most_steps(step)))
        if self.startup_seconds is None:
            self._startup.ended("restore")
        started = stopwatch()
        taken = self._parts.loop.run(steps, points)
        seconds = stopwatch() - started
        if self.startup_seconds is None:
            self._startup.ended("step", of_which=("trace", self._parts.loop.trace_seconds))
            self.startup_seconds = self._startup.seconds
            self._clock.launched(self.startup_seconds, self._parts.loop.traces)
        self._pace.took(taken.steps, seconds)
        self._clock.loop_took(taken.steps, seconds)
        self._clock.beat(step + taken.steps)
        fault = self._guard.examine(step, taken.steps, taken.good, taken.losses, taken.norms)
        return Passed(taken.steps, fault, taken.points)

    def _leave_out(self, step: int, points: Points) -> Passed:
        state = self._state
        self.record(Fault(step, self._guard.left_out[step]))
        state.step.assign_add(1)
        return Passed(1, None, [standing(self._parts)] if points.after(step) == 1 else [])

    def record(self, fault: Fault) -> None:
        """Keeps what a step that is left out had seen, and says so."""
        if self._inspector is not None and (line := self._inspector.record(fault)):
            self._tell(line)
