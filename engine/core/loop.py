"""The compiled training loop: one call of the graph takes several steps.

The number of steps is a tensor, so that one trace serves all calls. A call is a loop over log
points around a loop over steps, so that the steps between log points do no work for logging.

A call ends at its first non-finite step. On a CPU, the loop leaves early. On a GPU, the condition
of the loop would then wait for the device in every step; so all steps of the call run, those after
the first non-finite one change nothing, and the host learns at the end how many steps count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from engine.core import log_points, metrics
from engine.core.accumulation import Accumulation
from engine.core.log_points import LogPoint, LogPoints
from engine.core.loop_state import LoopArgs, LoopResult, LoopState, updates
from engine.core.state import TrainState
from engine.core.step import Step, StepContext
from engine.core.steps_per_loop import stopwatch
from engine.runtime.errors import StepError
from pipelines import Feed, opened, reason

MAX_WATCHED = 4096  # maximum number of steps of a call whose loss and gradient norm are recorded


@dataclasses.dataclass(eq=False, repr=False)
class Loop:
    """The compiled training loop, which takes steps in the graph on all replicas.

    The counters and sums are loop-carried values. Their final values are assigned to the variables
    of `state` once per call, because updating variables in each step takes longer. The attribute
    `traces` is the number of traces of the loop.

    Without `early_exit`, no operation on the host depends on what a device computes between two
    steps of a call, so the host does not wait for the device. Result, state and log points have the
    same bits. The steps after a non-finite one take time, and each step keeps the old values of all
    variables that it updates (weights, statistics, optimizer slots, EMA) until it has selected
    between old and new ones: as much memory again as these variables have, unless XLA compiles the
    step and fuses the selection with the update. With `jit="loop"`, XLA for GPUs itself reads the
    condition of its loop on the host.
    """

    strategy: tf.distribute.Strategy
    state: TrainState
    feed: Feed
    step: Step
    _: dataclasses.KW_ONLY
    watched: bool = False  # whether loss and gradient norm of each step are recorded
    jit: str = "off"  # what XLA compiles, on one replica: "off" (nothing), "step" or "loop"
    apart: bool = False  # whether `compute_gradients` is a separate function, which is not inlined
    early_exit: bool = True  # whether the loop leaves at a non-finite step: False for GPUs

    def __post_init__(self) -> None:
        self.traces = 0
        compute: Callable = self.step.compute_gradients
        self._apply_gradients: Callable = self.step.apply_gradients
        if self.jit == "step":
            compute, self._apply_gradients = _compiled(compute), _compiled(self._apply_gradients)
        if self.apart:
            compute = tf.function(
                compute, autograph=False, experimental_attributes={"_noinline": True}
            )
        self._most_points = log_points.most_points(self.state.sums.shape[0])
        zeros = self.step.zero_accumulators
        self._accumulation = Accumulation(self.strategy, self.feed, zeros, compute)
        self._call = tf.function(self._traced, autograph=False)

    def run(self, steps: int, points: LogPoints = LogPoints()) -> LoopResult:  # noqa: B008
        """Takes up to `steps` training steps of one epoch in one call of the graph.

        The call ends early after the first non-finite step, which does not update the weights;
        where the input from the feed ends; and, if `watched`, after `MAX_WATCHED` steps.

        Args:
          steps: maximum number of steps, 1 or more.
          points: log points; by default, there are none.

        Returns:
          The number of steps taken, whether the last step was finite, the loss and gradient norm of
          each step if `watched`, the values logged at the log points that were reached, for how
          long the host waited for the feed, and the number of steps computed.

        Raises:
          ValueError: for fewer than 1 step; for steps of two epochs; for steps beyond `points.last`
            or `most_steps(points)`; if no log point of `points` is after the current step; if the
            model, task or optimizer is found invalid when the loop is traced.
          StepError: if TensorFlow fails in a step.
          RuntimeError: if the feed cannot read its examples, or if the feed or the loop returns an
            invalid number of steps.
        """
        before = int(self.state.step)
        if steps < 1:
            raise ValueError(f"{steps} steps were asked for after step {before}: must be 1 or more")
        if steps > self.most_steps(points) or before + steps > points.last:
            raise ValueError(f"{steps} steps after step {before} go beyond the points {points}")
        steps = min(steps, MAX_WATCHED) if self.watched else steps
        start = stopwatch()
        try:
            steps, given = opened(self.feed, before, steps)
            waited = stopwatch() - start
            result = self._call(tf.constant(np.array([steps, *points], np.int64)), given)
        except tf.errors.OpError as error:
            hint = "" if self.jit == "off" else f" (XLA compiles the {self.jit}; --jit=off: not)"
            raise StepError(
                f"training failed after step {before}: {reason(error)}{hint}", before
            ) from error
        computed, taken, finite, passed, rows, watched = (each.numpy() for each in result)
        if not (0 < taken <= computed <= steps and (taken == steps or not finite)):
            raise RuntimeError(
                f"the loop was asked for {steps} steps after step {before} and took {taken}"
            )
        losses, norms = watched[:taken].T
        points_computed = map(LogPoint.unpack, rows[:passed])
        reached = [each for each in points_computed if each.step <= before + taken]
        return LoopResult(int(taken), bool(finite), losses, norms, reached, waited, int(computed))

    def most_steps(self, points: LogPoints) -> int:
        """Returns the maximum number of steps that the next call may take with these log points.

        Raises:
          ValueError: if no log point of `points` is after the current step.
        """
        return points.most_steps(int(self.state.step), self._most_points)

    def with_feed(self, feed: Feed) -> Loop:
        """Returns a new loop that trains the same state by the same step on another feed."""
        return dataclasses.replace(self, feed=feed)

    def graph(self, *, retrace: bool = False) -> Any:
        """Returns the ConcreteFunction of the loop, for inspection; takes no step.

        The function is the one that `run` calls, or, with `retrace`, a new trace that `traces` does
        not count.

        Raises:
          ValueError: if the model, task or optimizer is found invalid when the loop is traced.
        """
        _, given = self.feed.open(int(self.state.step), 1)
        function = tf.function(self._assigned, autograph=False) if retrace else self._call
        return function.get_concrete_function(tf.constant([1, *LogPoints()], tf.int64), given)

    def _traced(self, request: tf.Tensor, given: object) -> tuple[tf.Tensor, ...]:
        """Calls `_assigned` and counts the traces: this Python code runs once per trace."""
        self.traces += 1
        return self._assigned(request, given)

    def _assigned(self, request: tf.Tensor, given: object) -> tuple[tf.Tensor, ...]:
        """Takes the steps of a call; assigns the final loop-carried values to the state variables.

        Args:
          request: number of steps and the two fields of `LogPoints`, int64 [3].
          given: input of the graph from `Feed.open`.

        Returns:
          The number of steps computed and the number taken, int64 []; whether the last step taken
          was finite, bool []; then the number of log points, the rows and the watched values, as
          `_steps` returns them.
        """
        state, scale = self.state, self.state.loss_scale
        with self._on_host():
            step, sums, loss_scale = state.step + 0, state.sums + 0, scale.read()
            steps, every, last = tf.unstack(request)
            plateau = self.step.schedule.plateau
            factor = None if plateau is None else plateau(step)
            args = LoopArgs(step + steps, every, last, step - state.updates, factor)
        with self._on_device():
            counted = () if self.early_exit else (tf.constant(0, tf.int64),)
            if not self.early_exit:
                sums, loss_scale = tf.nest.map_structure(tf.identity, (sums, loss_scale))
            first = LoopState(step, sums, loss_scale, tf.constant(True), counted)
        take = _compiled(self._steps) if self.jit == "loop" else self._steps
        now, *logged = take(args, first, given)
        with self._on_host():
            taken = now.taken(first.step)
            reached = first.step + taken
            computed = now.step - first.step
        state.step.assign(reached)
        state.updates.assign(updates(reached, now.finite, args))
        state.sums.assign(now.sums)
        scale.write(now.scale)
        return computed, taken, now.finite, *logged

    def _steps(self, args: LoopArgs, first: LoopState, given: object) -> tuple[Any, ...]:
        """Takes the steps of a call, and packs a `LogPoint` into a row at each log point.

        Args:
          args: constants of the call.
          first: loop-carried values before the call.
          given: input of the graph from `Feed.open`.

        Returns:
          The final `LoopState`; the number of log points reached, int32 []; the rows, float64
          [maximum log points + 1, 4 + sums], of which only as many are valid as log points were
          reached; and `metrics.step_watched` of each step, float32 [MAX_WATCHED, 2], or [0, 2]
          if not recorded.
        """
        one_step = functools.partial(self._one_step, args, first.step, given)

        def to_log_point(
            now: LoopState, passed: tf.Tensor, rows: tf.TensorArray, *watched: tf.TensorArray
        ) -> tuple[Any, ...]:
            with self._on_host():
                steps = tf.minimum(args.every - now.step % args.every, args.last - now.step)
                # At least one step, whatever the arguments are; otherwise the loop never ends.
                point = now.step + tf.maximum(steps, 1)
                end = tf.minimum(args.end, point)
            now, *recorded = self._while_finite(end, one_step, (now, *watched))
            with self._on_host():
                rate = self.step.schedule(now.step - 1, args.factor)
                # The last row of a call that ends between two log points is not counted.
                passed_after = passed + tf.cast(now.step == point, tf.int32)
            with self._on_device():
                # A row after a non-finite step of the call is left out by `run`.
                row = log_points.pack(
                    now.step,
                    updates(now.step, now.finite, args),
                    self.state.loss_scale.value_of(now.scale),
                    rate,
                    sums=now.sums,
                )
                return now, passed_after, rows.write(passed, row), *recorded

        with self._on_device():
            length = len(LogPoint._fields) - 1 + first.sums.shape[0]
            rows = tf.TensorArray(tf.float64, self._most_points + 1, element_shape=[length])
            # Recording takes time in each step, so it is optional.
            watched = [tf.TensorArray(tf.float32, MAX_WATCHED, element_shape=[2])] * self.watched
        with self._on_host():
            start = first, tf.constant(0), rows, *watched
        now, passed, rows, *watched = self._while_finite(args.end, to_log_point, start)
        with self._on_device():
            return now, passed, rows.stack(), watched[0].stack() if watched else tf.zeros([0, 2])

    def _one_step(
        self,
        args: LoopArgs,
        first: tf.Tensor,  # first step of the call
        given: object,
        now: LoopState,
        *watched: tf.TensorArray,
    ) -> tuple[Any, ...]:
        """Takes one step on all replicas.

        Args:
          args: constants of the call.
          first: index of the first step of the call, int64 [].
          given: input of the graph from `Feed.open`.
          now: loop-carried values before the step.
          *watched: one array of the losses and gradient norms of the steps so far, or none.

        Returns:
          The `LoopState` after the step, then `watched` with the loss and gradient norm of the
          step.
        """
        scale = self.state.loss_scale
        # All earlier steps of this call updated the weights: a step after one that did not is not
        # taken, or changes nothing.
        context = StepContext(
            now.step,
            now.step - args.skipped,
            scale.value_of(now.scale),
            args.factor,
            None if self.early_exit else now.finite,
        )
        total = self._accumulation.total(self.feed.next(given), context.step, context)
        result = self.strategy.run(self._apply_gradients, args=(total, context))
        # After the reduction, all replicas hold the same values.
        finite, sums = (self.strategy.experimental_local_results(r)[0] for r in result)
        with self._on_host():
            index, step = tf.cast(now.step - first, tf.int32), now.step + 1
        with self._on_device():
            added = now.sums + tf.cast(sums, tf.float64)
            scale_after, counted = scale.after(now.scale, finite), now.counted
            if not self.early_exit:
                select = functools.partial(tf.where, now.finite)
                scale_after = tf.nest.map_structure(select, scale_after, now.scale)
                counted = (now.counted[0] + tf.cast(now.finite, tf.int64),)
                finite &= now.finite
            sums_after = tf.where(finite, added, now.sums)
            after = LoopState(step, sums_after, scale_after, finite, counted)
            return after, *(each.write(index, metrics.step_watched(sums)) for each in watched)

    def _while_finite(self, end: tf.Tensor, body: Callable, start: tuple[Any, ...]) -> list[Any]:
        """Repeats `body` until step `end`, or a non-finite step; returns the final loop variables.

        Without early exit, a non-finite step does not end the loop.

        Args:
          end: step to stop before, int64 [].
          body: takes the current loop variables and returns new ones, after one or more steps.
          start: the first loop variables, of which the first is a `LoopState`.
        """

        def condition(now: LoopState, *_: Any) -> tf.Tensor:
            with self._on_host():
                before = now.step < end
                return before & now.finite if self.early_exit else before

        return tf.while_loop(condition, body, start, parallel_iterations=1)

    def _on_host(self) -> contextlib.AbstractContextManager:
        """Returns the device scope of counters: the host CPU, or none if XLA compiles the loop."""
        return contextlib.nullcontext() if self.jit == "loop" else tf.device("CPU:0")

    def _on_device(self) -> contextlib.AbstractContextManager:
        """Returns the device scope of sums, loss scale and verdict.

        With early exit, which the host decides, it is that of counters; otherwise, the device of
        the first replica of this worker.
        """
        if self.early_exit:
            return self._on_host()
        if self.strategy.num_replicas_in_sync == 1:
            return contextlib.nullcontext()  # TensorFlow's default: the GPU, if there is one
        return tf.device(self.strategy.extended.worker_devices[0])


def _compiled(function: Callable) -> Callable:
    return tf.function(function, autograph=False, jit_compile=True)
