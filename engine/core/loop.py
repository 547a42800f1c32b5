"""The compiled training loop: one call of the graph takes N steps, N a tensor, in one trace (L6).

A call takes steps until it has taken as many as it was asked for, or until one is not finite. It is
a loop over log points around a loop over steps: between two log points, logging costs nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from engine.core import log_points, metrics
from engine.core.accumulation import Accumulation
from engine.core.log_points import LogPoint, LogPoints
from engine.core.state import TrainState
from engine.core.step import Step, StepContext
from engine.core.steps_per_loop import stopwatch
from engine.optim.precision import Scale
from engine.runtime.errors import StepError
from pipelines import Feed, opened, reason

MAX_WATCHED = 4096  # steps of a call that loss and gradient norm can be returned of


class LoopResult(NamedTuple):
    """The steps that one call took.

    Attributes:
      steps: how many; all but the last were finite.
      finite: whether the last one was.
      losses: float32 [steps], the loss of each; empty where they are not watched.
      norms: float32 [steps], the gradient norm of each before clipping; empty where losses are.
      points: the log points that were passed.
    """

    steps: int
    finite: bool
    losses: np.ndarray
    norms: np.ndarray
    points: list[LogPoint]


class LoopArgs(NamedTuple):
    """What one call is asked for; int64 [] each."""

    end: tf.Tensor  # the step to stop before
    every: tf.Tensor  # as LogPoints.every
    last: tf.Tensor  # as LogPoints.last
    skipped: tf.Tensor  # steps before this call that did not update the weights


class LoopState(NamedTuple):
    """Loop-carried values: all that a step changes except the model, its slots and its EMA."""

    step: tf.Tensor  # int64 []
    sums: tf.Tensor  # float64, as TrainState.sums
    scale: tuple[Scale, ...]  # empty where the loss scale is constant
    finite: tf.Tensor  # bool []: whether the last step was finite


class Loop:
    """Runs training steps in the graph, on all replicas.

    The counters and sums are loop-carried values that are assigned to the state's variables once a
    call: a variable would cost time in each step.

    Attributes:
      traces: how often the loop was traced.
      trace_seconds: seconds that tracing took.

    Args:
      strategy: whose replicas take each step together.
      state: what the steps update.
      feed: of the batches.
      step: the mathematics of one step.
      watched: whether loss and gradient norm of each step are returned.
      jit: what XLA compiles, on one replica: "off", "step" or "loop".
      apart: whether `step.compute_gradients` is a function of its own to TensorFlow's executor.
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
        self._strategy, self._state, self._feed, self._step = strategy, state, feed, step
        self._watched, self._jit, self._apart = watched, jit, apart
        self._xla = jit == "loop"
        halves: list[Callable] = [step.compute_gradients, step.apply_gradients]
        compute_gradients, self._apply_gradients = (
            map(_compiled, halves) if jit == "step" else halves
        )
        if apart:
            compute_gradients = tf.function(
                compute_gradients, autograph=False, experimental_attributes={"_noinline": True}
            )
        self._accumulation = Accumulation(strategy, feed, step.zero_accumulators, compute_gradients)
        self._call = tf.function(self._traced, autograph=False)

    def run(self, steps: int, at: LogPoints = LogPoints()) -> LoopResult:  # noqa: B008 - a constant
        """Takes `steps` steps of one epoch; the first that is not finite ends the call early.

        Args:
          steps: how many, 1 or more; fewer are taken where the feed has no more at hand, or where
            no more can be watched in one call.
          at: the log points; no more than one call has room for, and the last one not before the
            end of the call.

        Raises:
          ValueError: for fewer than 1 step, or for steps beyond the last log point.
          StepError: when TensorFlow fails in one of them.
          RuntimeError: when no step was taken.
        """
        before = int(self._state.step)
        if steps < 1:
            raise ValueError(f"{steps} steps were asked for after step {before}: must be 1 or more")
        if steps > at.most_steps(before) or before + steps > at.last:
            raise ValueError(f"{steps} steps after step {before} go beyond the points {at}")
        steps = min(steps, MAX_WATCHED) if self._watched else steps
        try:
            steps, given = opened(self._feed, before, steps)
            found = self._call(tf.constant(np.array([steps, *at], np.int64)), given)
        except tf.errors.OpError as error:
            hint = "" if self._jit == "off" else f" (XLA compiles the {self._jit}; --jit=off: not)"
            raise StepError(
                f"training failed after step {before}: {reason(error)}{hint}", before
            ) from error
        taken, finite, passed, rows, watched = (each.numpy() for each in found)
        if not (0 < taken <= steps and (taken == steps or not finite)):
            raise RuntimeError(
                f"the loop was asked for {steps} steps after step {before} and took {taken}"
            )
        losses, norms = watched[:taken].T
        points = [LogPoint.of_row(row) for row in rows[:passed]]
        return LoopResult(int(taken), bool(finite), losses, norms, points)

    def with_feed(self, feed: Feed) -> Loop:
        """Returns a loop that takes the same steps on the batches of another feed."""
        return Loop(
            self._strategy,
            self._state,
            feed,
            self._step,
            watched=self._watched,
            jit=self._jit,
            apart=self._apart,
        )

    def graph(self, *, retrace: bool = False) -> Any:
        """Returns the ConcreteFunction of a call, to be inspected; runs nothing.

        Args:
          retrace: traces another function than the one that `run` calls; not counted in `traces`.
        """
        _, given = self._feed.open(int(self._state.step), 1)
        function = tf.function(self._assigned, autograph=False) if retrace else self._call
        return function.get_concrete_function(tf.constant([1, *LogPoints()], tf.int64), given)

    def _traced(self, asked: tf.Tensor, given: object) -> tuple[tf.Tensor, ...]:
        """Counts and times its own tracing."""
        self.traces += 1
        started = stopwatch()
        found = self._assigned(asked, given)
        self.trace_seconds += stopwatch() - started
        return found

    def _assigned(self, asked: tf.Tensor, given: object) -> tuple[tf.Tensor, ...]:
        """Takes the steps and assigns the loop-carried values to the state.

        Args:
          asked: steps, and `LogPoints`; int64 [3].
          given: what the feed was opened with.

        Returns:
          Steps taken, whether the last was finite, and the last three values of `_steps`.
        """
        state, scale = self._state, self._state.loss_scale
        with self._on_host():
            started = tf.constant(True)
            first = LoopState(state.step + 0, state.sums + 0, scale.read(), started)
            steps, every, last = tf.unstack(asked)
            args = LoopArgs(first.step + steps, every, last, first.step - state.updates)
        take = _compiled(self._steps) if self._xla else self._steps
        now, *logged = take(args, first, given)
        state.step.assign(now.step)
        state.updates.assign(_updates(now, args))
        state.sums.assign(now.sums)
        scale.write(now.scale)
        return now.step - first.step, now.finite, *logged

    def _steps(self, args: LoopArgs, first: LoopState, given: object) -> tuple[Any, ...]:
        """Takes the steps of a call: those up to a log point, its row, and so on.

        Returns:
          The last LoopState; how many log points were passed, int32 []; their rows, float64
          [points, fields]; `metrics.step_watched` of each step, float32 [MAX_WATCHED, 2], or
          [0, 2] where nothing is watched.
        """

        def to_log_point(
            now: LoopState, passed: tf.Tensor, rows: tf.TensorArray, *watched: tf.TensorArray
        ) -> tuple[Any, ...]:
            with self._on_host():
                steps = tf.minimum(args.every - now.step % args.every, args.last - now.step)
                # At least one step, whatever was asked for: else this loop would never end.
                point = now.step + tf.maximum(steps, 1)
                end = tf.minimum(args.end, point)
            now, *told = self._steps_until(end, args, first.step, now, given, *watched)
            with self._on_host():
                row = log_points.row(
                    step=now.step,
                    updates=_updates(now, args),
                    loss_scale=self._state.loss_scale.value_of(now.scale),
                    learning_rate=self._step.learning_rate(now.step - 1),
                    sums=now.sums,
                )
                # Where the call ends between two log points, the next row overwrites this one.
                rows = rows.write(passed, row)
                return now, passed + tf.cast(now.step == point, tf.int32), rows, *told

        with self._on_host():
            length = len(LogPoint._fields) - 1 + first.sums.shape[0]
            rows = tf.TensorArray(tf.float64, log_points.MOST + 1, element_shape=[length])
            # Watching costs time in each step.
            watched = [tf.TensorArray(tf.float32, MAX_WATCHED, element_shape=[2])] * self._watched
            start = first, tf.constant(0), rows, *watched
        now, passed, rows, *watched = tf.while_loop(
            lambda now, *_: self._continues(now, args.end),
            to_log_point,
            start,
            parallel_iterations=1,
        )
        return now, passed, rows.stack(), watched[0].stack() if watched else tf.zeros([0, 2])

    def _steps_until(
        self,
        end: tf.Tensor,
        args: LoopArgs,
        first: tf.Tensor,
        now: LoopState,
        given: object,
        *watched: tf.TensorArray,
    ) -> list[Any]:
        """Takes steps until `end`, or until one is not finite."""

        def one_step(now: LoopState, *watched: tf.TensorArray) -> tuple[Any, ...]:
            scale = self._state.loss_scale
            # All steps of this call so far were updates: the first that is not ends it.
            at = StepContext(now.step, now.step - args.skipped, scale.value_of(now.scale))
            total = self._accumulation.total(self._feed.next(given), at.step, at)
            result = self._strategy.run(self._apply_gradients, args=(total, at))
            # After the reduction all replicas hold the same values.
            finite, sums = map(self._of_any_replica, result)
            with self._on_host():
                added = now.sums + tf.cast(sums, tf.float64)
                after = LoopState(
                    now.step + 1,
                    tf.where(finite, added, now.sums),
                    scale.after(now.scale, finite),
                    finite,
                )
                place = tf.cast(now.step - first, tf.int32)
                return after, *(each.write(place, metrics.step_watched(sums)) for each in watched)

        return tf.while_loop(
            lambda now, *_: self._continues(now, end),
            one_step,
            [now, *watched],
            parallel_iterations=1,
        )

    def _continues(self, now: LoopState, end: tf.Tensor) -> tf.Tensor:
        with self._on_host():
            return (now.step < end) & now.finite

    def _of_any_replica(self, replicated: object) -> tf.Tensor:
        return self._strategy.experimental_local_results(replicated)[0]

    def _on_host(self) -> contextlib.AbstractContextManager:
        """Places counters on the host; what XLA compiles as a whole lies on one device."""
        return contextlib.nullcontext() if self._xla else tf.device("CPU:0")


def _compiled(function: Callable) -> Callable:
    return tf.function(function, autograph=False, jit_compile=True)


def _updates(now: LoopState, args: LoopArgs) -> tf.Tensor:
    """Steps so far that updated the weights, int64 []: in a call only the last one may not have."""
    return now.step - args.skipped - tf.cast(~now.finite, tf.int64)
