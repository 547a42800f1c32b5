"""N steps in the graph, N a tensor: one trace for a whole run (L6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from engine.failure import StepError
from engine.pace import stopwatch
from engine.points import Point, Points
from engine.state import TrainState
from engine.step import Step
from engine.stretches import MOST_WATCHED, Call, Now, Stretches, on_host, updates
from pipelines import Feed, opened, reason


def _compiled(function: Callable) -> Callable:
    return tf.function(function, autograph=False, jit_compile=True)


class Taken(NamedTuple):
    """What came of some steps.

    steps: how many were taken; all but the last were finite.
    good: whether the last was.
    losses: float32 [steps], of each; empty where they are not watched.
    norms: float32 [steps], of each gradient before clipping; empty where they are not watched.
    points: of the curves, that were passed.
    """

    steps: int
    good: bool
    losses: np.ndarray
    norms: np.ndarray
    points: list[Point]


class Loop:
    """The compiled training loop.

    traces: how often it was traced, in `trace_seconds`.

    Args:
      strategy: over whose replicas a step is taken.
      state: what the steps move.
      feed: what they see.
      step: what each replica does.
      watched: whether the loss of each step is given, and its gradient's norm.
      jit: what XLA compiles, on one replica: "off", "step" or "loop".
      apart: whether what a piece contributes is a function of its own to TensorFlow's executor.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        state: TrainState,
        feed: Feed,
        step: Step,
        *,
        watched: bool = False,
        jit: str = "off",
        apart: bool = False,
    ) -> None:
        self.traces, self.trace_seconds = 0, 0.0
        self._watched, self._jit, self._xla, self._apart = watched, jit, jit == "loop", apart
        self._strategy, self._state, self._feed, self._step = strategy, state, feed, step
        halves: list[Callable] = [step.contribute, step.act]
        contribute, act = map(_compiled, halves) if jit == "step" else halves
        if apart:
            contribute = tf.function(
                contribute, autograph=False, experimental_attributes={"_noinline": True}
            )
        self._stretches = Stretches(
            strategy,
            state,
            feed,
            step,
            contribute=contribute,
            act=act,
            watched=watched,
            xla=self._xla,
        )
        self._compiled = tf.function(self._counted, autograph=False)

    def run(self, steps: int, at: Points = Points()) -> Taken:  # noqa: B008 - a constant
        """Takes `steps` steps, which must lie in one epoch; the first that is bad ends it early.

        Args:
          steps: how many, 1 or more; fewer are taken where the feed has no more at hand, or
            there is no room for what is told of them.
          at: which of them are points of the curves; no more than there is room for, and the last
            one not behind the steps that are asked for.

        Raises:
          ValueError: when it is asked for no step, or for steps beyond the last point.
          StepError: when TensorFlow fails in one of them.
          RuntimeError: when no step was taken.
        """
        before = int(self._state.step)
        if steps < 1:
            raise ValueError(f"{steps} steps were asked for after step {before}: must be 1 or more")
        if steps > at.most_steps(before) or before + steps > at.last:
            raise ValueError(f"{steps} steps after step {before} go beyond the points {at}")
        steps = min(steps, MOST_WATCHED) if self._watched else steps
        try:
            steps, given = opened(self._feed, before, steps)
            found = self._compiled(tf.constant(np.array([steps, *at], np.int64)), given)
        except tf.errors.OpError as error:
            hint = "" if self._jit == "off" else f" (XLA compiles the {self._jit}; --jit=off: not)"
            raise StepError(
                f"training failed after step {before}: {reason(error)}{hint}", before
            ) from error
        taken, good, seen, rows, told = (each.numpy() for each in found)
        if not (0 < taken <= steps and (taken == steps or not good)):
            raise RuntimeError(
                f"the loop was asked for {steps} steps after step {before} and took {taken}"
            )
        losses, norms = told[:taken].T
        points = [Point.of_row(row) for row in rows[:seen]]
        return Taken(int(taken), bool(good), losses, norms, points)

    def fed(self, feed: Feed) -> Loop:
        """The same steps on what another feed gives."""
        return Loop(
            self._strategy,
            self._state,
            feed,
            self._step,
            watched=self._watched,
            jit=self._jit,
            apart=self._apart,
        )

    def graph(self, *, anew: bool = False) -> Any:
        """A call as TensorFlow's ConcreteFunction, to be looked at; nothing runs.

        Args:
          anew: traced once more, apart from what `run` calls; not counted in `traces`.
        """
        _, given = self._feed.open(int(self._state.step), 1)
        function = tf.function(self._steps, autograph=False) if anew else self._compiled
        return function.get_concrete_function(tf.constant([1, *Points()], tf.int64), given)

    def _counted(self, asked: tf.Tensor, given: object) -> tuple[tf.Tensor, ...]:
        self.traces += 1
        started = stopwatch()
        found = self._steps(asked, given)
        self.trace_seconds += stopwatch() - started
        return found

    def _steps(self, asked: tf.Tensor, given: object) -> tuple[tf.Tensor, ...]:
        """(steps taken, whether the last was good, points passed, their rows, losses and norms)."""
        state, scale = self._state, self._state.loss_scale
        with on_host(self._xla):
            started = tf.constant(True)
            first = Now(state.step + 0, state.sums + 0, scale.read(), started)
            steps, every, last = tf.unstack(asked)
            call = Call(first.step + steps, every, last, first.step - state.updates)
        take = _compiled(self._stretches.take) if self._xla else self._stretches.take
        now, *noted = take(call, first, given)
        state.step.assign(now.step)
        state.updates.assign(updates(now, call))
        state.sums.assign(now.sums)
        scale.write(now.scale)
        return now.step - first.step, now.good, *noted
