"""Steps taken as a run takes them, with all that it does between two calls of the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from engine.assembly import Parts
from engine.keeping.clock import Clock
from engine.loop import Loop
from engine.points import Point, Points
from engine.startup import Startup
from engine.training.advance import Advance
from engine.training.guard import Fault, guard_of
from engine.workers.crew import Crew
from pipelines import Stream


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Somebody asked to stop."""


def read_ahead(parts: Parts) -> int:
    """Steps that cost no reading, because it was done in a pause before them; 0: none."""
    feed = parts.feeds.training
    return feed.ahead if isinstance(feed, Stream) else 0


Start = Sequence[tuple[tf.Variable, np.ndarray]]


class Stepper:
    """Takes steps of a loop; writes nothing.

    left_out: how many steps went wrong that training would leave out.

    Args:
      parts: of the run.
      loop: over its state.
      interrupted: asked between two calls whether to stop.
      start: variables and the values that `restart` gives them.
      judged: whether too many steps that go wrong are an error; else any number may.
    """

    def __init__(
        self,
        parts: Parts,
        loop: Loop,
        interrupted: Callable[[], bool],
        start: Start = (),
        *,
        judged: bool = True,
    ) -> None:
        self.left_out = 0
        self._parts, self._state, self._interrupted = parts, parts.state, interrupted
        self._start, self._judged = start, judged
        self._taken = 0  # since the last restart
        self._run = self._run_left_out = 0  # runs of that many steps; faults in the last one
        own = dataclasses.replace(parts, loop=loop)
        self._guard = guard_of(parts)
        clock = Clock(self._state.times, "", writes=False)
        self._advance = Advance(own, self._guard, clock, Crew(), Startup(), lambda line: None)

    @property
    def read_ahead(self) -> int:
        """As `read_ahead` of the run."""
        return read_ahead(self._parts)

    def restart(self) -> None:
        """Gives the variables of `start` their values, and counts steps from 0 again."""
        for variable, value in self._start:
            variable.assign(value)
        self._guard.load()
        self._taken = self._run = self._run_left_out = 0

    def take(self, steps: int, *, point: bool = False) -> list[Point]:
        """Takes so many, epoch by epoch.

        Args:
          steps: how many.
          point: whether the last one is a point of the curves.

        Returns:
          That point, if there is one.

        Raises:
          Interrupted: when it was asked to stop.
          RuntimeError: when TensorFlow fails, or more steps go wrong than training would leave
            out.
        """
        points: list[Point] = []
        end = int(self._state.step) + steps
        at = Points(last=end) if point else Points()
        while (step := int(self._state.step)) < end:
            if self._interrupted():
                raise Interrupted
            to_end = self._parts.steps_per_epoch - step % self._parts.steps_per_epoch
            passed = self._advance.go(min(end - step, to_end), at)
            self._taken += passed.steps
            if passed.fault is not None:
                self._leave_out(passed.fault)
            points += passed.points
        return points

    def _leave_out(self, fault: Fault) -> None:
        """Goes on after a step that went wrong, as training would.

        Training would go back to a checkpoint and take other steps once more. Here a step that was
        not finite has moved nothing; after any other fault the weights start again.
        """
        step = self._state.step
        if fault.why.moved:
            for variable, value in self._start:
                if variable is not step:
                    variable.assign(value)
        self._guard.load()
        self.left_out += 1
        # A block may be longer than the run, and each run may leave out so many.
        run = (self._taken - 1) // self._parts.total_steps
        self._run_left_out = 1 + self._run_left_out * (run == self._run)
        self._run = run
        most = self._parts.config.guarding.most_left_out
        if self._judged and self._run_left_out > most:
            raise RuntimeError(
                f"step {fault.step:,} went wrong ({fault.why.words}), one more than "
                f"--most_left_out={most} allows: a training would stop here; mend the data, or "
                "train more slowly, or raise --most_left_out"
            )
