"""Some steps further: one call of the graph, or past a step that is left out."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.assembly import Parts
from engine.guard import Fault, Guard
from engine.inspection import Inspector
from engine.keeping.clock import Clock
from engine.loop import Pace, stopwatch
from engine.scalars import real
from engine.update_ratio import UpdateRatio
from engine.workers.crew import Crew


class Advance:
    """Takes a run's steps, times them, and has the guard look at each.

    Args:
      parts: of the run.
      guard: of the same state.
      clock: of the same state.
      crew: the workers; all take the same steps.
      imported_at: when TensorFlow's import was done, on the monotonic clock.
      tell: is given a line for a person now and then.
    """

    def __init__(
        self,
        parts: Parts,
        guard: Guard,
        clock: Clock,
        crew: Crew,
        imported_at: float,
        tell: Callable[[str], None],
    ) -> None:
        self.first_step_seconds: float | None = None  # from the import to the end of the first step
        self._parts, self._state, self._guard, self._clock = parts, parts.state, guard, clock
        self._imported_at, self._tell = imported_at, tell
        self._pace = Pace(parts.config.training.steps_per_loop, agree=crew.of_chief)
        self._ratio = UpdateRatio(parts.model.trainable_variables)
        self._inspector = Inspector(parts) if crew.is_chief else None

    def go(self, most: int, to_point: int) -> Fault | None:
        """Takes a step or more, or leaves one out.

        Args:
          most: steps, at most.
          to_point: steps to the next point of the curves.

        Returns:
          What went wrong in one of them, if anything did.
        """
        state, step = self._state, int(self._state.step)
        to_left_out = self._guard.until_left_out(step)
        if not to_left_out:
            self.record(Fault(step, self._guard.left_out[step]))
            state.step.assign_add(1)
            if to_point == 1:
                state.update_ratio.assign(0.0)
            return None
        steps = self._pace.steps(min(most, to_left_out))
        if 1 < steps == to_point:
            steps -= 1  # the step of a point is taken alone, so that what it moves can be measured
        alone = steps == to_point
        if alone:
            self._ratio.start()
        started = stopwatch()
        taken = self._parts.loop.run(steps)
        seconds = stopwatch() - started
        if self.first_step_seconds is None:
            self.first_step_seconds = time.monotonic() - self._imported_at
        if alone:
            state.update_ratio.assign(real(self._ratio.measure()))
        else:
            self._pace.took(taken.steps, seconds)
        self._clock.loop_took(taken.steps, seconds)
        self._clock.beat(step + taken.steps)
        return self._guard.examine(step, *taken)

    def record(self, fault: Fault) -> None:
        """Keeps what a step that is left out had seen, and says so."""
        if self._inspector is not None and (line := self._inspector.record(fault)):
            self._tell(line)
