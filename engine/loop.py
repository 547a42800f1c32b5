"""N steps in the graph, N a tensor: one trace for a whole run (L6)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from engine import metrics, points
from engine.numerics.precision import Scale
from engine.numerics.update_ratio import Measured
from engine.pace import stopwatch
from engine.pieces import Pieces
from engine.points import Point, Points
from engine.state import TrainState
from engine.step import At, Step
from pipelines import Feed, reason

MOST_WATCHED = 4096  # steps of a call whose losses it has room for


def _compiled(function: Callable) -> Callable:
    return tf.function(function, autograph=False, jit_compile=True)


class Now(NamedTuple):
    """What changes with every step besides the model and what follows it."""

    step: tf.Tensor  # int64 []
    sums: tf.Tensor  # float64, as TrainState.sums
    scale: tuple[Scale, ...]  # none where it is constant
    good: tf.Tensor  # bool []: whether the last step was finite


class Call(NamedTuple):
    """What a call of the graph is given, int64 [] each."""

    end: tf.Tensor  # the step to stop before
    every: tf.Tensor  # points.Points
    last: tf.Tensor  # likewise
    skipped: tf.Tensor  # steps so far that moved nothing


class Taken(NamedTuple):
    """What came of some steps.

    steps: how many were taken; all but the last were finite.
    good: whether the last was.
    losses: float32 [steps], of each; empty where they are not watched.
    points: of the curves, that were passed.
    """

    steps: int
    good: bool
    losses: np.ndarray
    points: list[Point]


def _updates(now: Now, call: Call) -> tf.Tensor:
    """Steps so far that moved the weights, int64 []: in a call only its last one may not have."""
    return now.step - call.skipped - tf.cast(~now.good, tf.int64)


class Loop:
    """The compiled training loop.

    traces: how often it was traced, in `trace_seconds`.

    Args:
      strategy: over whose replicas a step is taken.
      state: what the steps move.
      feed: what they see.
      step: what each replica does.
      watched: whether the loss of each step is given.
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
        contribute, self._act = map(_compiled, halves) if jit == "step" else halves
        if apart:
            contribute = tf.function(
                contribute, autograph=False, experimental_attributes={"_noinline": True}
            )
        self._pieces = Pieces(strategy, feed, step.zeros, contribute)
        self._compiled = tf.function(self._counted, autograph=False)

    def run(self, steps: int, at: Points = Points()) -> Taken:  # noqa: B008 - a constant
        """Takes `steps` steps, which must lie in one epoch; the first that is bad ends it early.

        Args:
          steps: how many, 1 or more; fewer are taken where the feed has no more at hand, or
            there is no room for their losses.
          at: which of them are points of the curves; no more than there is room for.

        Raises:
          RuntimeError: when TensorFlow fails in one of them.
        """
        before = int(self._state.step)
        steps = min(steps, MOST_WATCHED) if self._watched else steps
        try:
            steps, given = self._feed.open(before, steps)
            found = self._compiled(tf.constant(np.array([steps, *at], np.int64)), given)
        except tf.errors.OpError as error:
            hint = "" if self._jit == "off" else f" (XLA compiles the {self._jit}; --jit=off: not)"
            raise RuntimeError(
                f"training failed after step {before}: {reason(error)}{hint}"
            ) from error
        taken, good, seen, rows, losses = (each.numpy() for each in found)
        assert 0 < taken <= steps and (taken == steps or not good), (
            f"the loop was asked for {steps} steps and took {taken}"
        )
        return Taken(
            int(taken), bool(good), losses[:taken], [Point.of_row(row) for row in rows[:seen]]
        )

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
        """(steps taken, whether the last was good, points passed, their rows, losses)."""
        state, scale = self._state, self._state.loss_scale
        # Numbers go round in the loop and into the state when it is done: a variable a step costs.
        with self._on_host():
            started = tf.constant(True)
            first = Now(state.step + 0, state.sums + 0, scale.read(), started)
            steps, every, last = tf.unstack(asked)
            call = Call(first.step + steps, every, last, first.step - state.updates)
        stretches = _compiled(self._stretches) if self._xla else self._stretches
        now, ratio, *noted = stretches(call, first, state.update_ratio + 0, given)
        state.step.assign(now.step)
        state.updates.assign(_updates(now, call))
        state.sums.assign(now.sums)
        state.update_ratio.assign(ratio)
        scale.write(now.scale)
        return now.step - first.step, now.good, *noted

    def _stretches(
        self, call: Call, first: Now, ratio: tf.Tensor, given: object
    ) -> tuple[Any, ...]:
        """Stretches of steps: those up to the one of a point, then that one alone, and so on.

        So what a point needs beside the sums costs nothing between two points.
        """
        measured = Measured(self._state.model.trainable_variables, self._xla)

        def stretch(
            now: Now,
            ratio: tf.Tensor,
            held: list[tf.Tensor],
            seen: tf.Tensor,
            rows: tf.TensorArray,
            *losses: Any,
        ) -> tuple[Any, ...]:
            with self._on_host():
                to_point = tf.minimum(call.every - now.step % call.every, call.last - now.step)
                alone = to_point == 1
                end = tf.minimum(call.end, now.step + tf.where(alone, to_point, to_point - 1))
            before = measured.before(alone, held)
            now, *told = self._stretch(call, first.step, now, end, given, *losses)
            ratio = measured.after(alone, before, ratio)
            with self._on_host():
                row = points.row(
                    step=now.step,
                    updates=_updates(now, call),
                    loss_scale=self._state.loss_scale.value_of(now.scale),
                    learning_rate=self._step.rate(now.step - 1),
                    update_ratio=ratio,
                    sums=now.sums,
                )
                # What is noted down elsewhere than at a point is written over.
                seen, rows = seen + tf.cast(alone, tf.int32), rows.write(seen, row)
                return now, ratio, measured.held(before), seen, rows, *told

        with self._on_host():
            length = len(Point._fields) - 1 + first.sums.shape[0]
            rows = tf.TensorArray(tf.float64, points.MOST + 1, element_shape=[length])
            start = first, ratio, measured.nothing(), tf.constant(0), rows, *self._losses()
        now, ratio, _, seen, rows, *losses = tf.while_loop(
            lambda now, *_: self._goes_on(now, call.end), stretch, start, parallel_iterations=1
        )
        return now, ratio, seen, rows.stack(), losses[0].stack() if losses else tf.zeros([0])

    def _stretch(
        self,
        call: Call,
        first: tf.Tensor,
        now: Now,
        end: tf.Tensor,
        given: object,
        *losses: tf.TensorArray,
    ) -> list[Any]:
        """Steps until `end`, or until one is bad."""

        def body(now: Now, *losses: tf.TensorArray) -> tuple[Any, ...]:
            # A bad step ends the loop: until then all steps in it were updates.
            scale = self._state.loss_scale
            at = At(now.step, now.step - call.skipped, scale.value_of(now.scale))
            total = self._pieces.total(self._feed.next(given), at.step, at)
            outcome = self._strategy.run(self._act, args=(total, at))
            # After the reduction every replica holds the same: any one will do.
            good, sums = map(self._any, outcome)
            with self._on_host():
                added = now.sums + tf.cast(sums, tf.float64)
                after = Now(
                    now.step + 1,
                    tf.where(good, added, now.sums),
                    scale.after(now.scale, good),
                    good,
                )
                place, loss = tf.cast(now.step - first, tf.int32), metrics.step_loss(sums)
                return after, *(each.write(place, loss) for each in losses)

        return tf.while_loop(
            lambda now, *_: self._goes_on(now, end), body, [now, *losses], parallel_iterations=1
        )

    def _goes_on(self, now: Now, end: tf.Tensor) -> tf.Tensor:
        with self._on_host():
            return (now.step < end) & now.good

    def _losses(self) -> list[tf.TensorArray]:
        """Where losses go; nowhere when they are not watched, because each costs."""
        return [tf.TensorArray(tf.float32, MOST_WATCHED, element_shape=[])] * self._watched

    def _any(self, replicated: object) -> tf.Tensor:
        return self._strategy.experimental_local_results(replicated)[0]

    def _on_host(self) -> contextlib.AbstractContextManager:
        """Numbers about numbers belong to the host; what XLA compiles lies on one device."""
        return contextlib.nullcontext() if self._xla else tf.device("CPU:0")
