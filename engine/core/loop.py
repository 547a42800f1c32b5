"""The compiled training loop: one call of the graph takes several steps.

The number of steps is a tensor, so that one trace serves all calls. A call is a loop over log
points around a loop over steps, so that the steps between log points do no work for logging.

A call ends at its first non-finite step. On a CPU, the loop leaves early. On a GPU, the condition
of the loop would then wait for the device in every step; so all steps of the call run, those after
the first non-finite one change nothing, and the host learns at the end how many steps count.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from engine.core import log_points, metrics, xla
from engine.core.accumulation import Accumulation
from engine.core.log_points import LogPoint, LogPoints
from engine.core.loop_state import LoopArgs, LoopResult, LoopState, LoopStateUpdater, updates
from engine.core.placement import Placement
from engine.core.state import TrainState
from engine.core.step import Step
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
    jit: str = "off"  # what XLA compiles: "off" (nothing), "step" or, on one replica, "loop"
    apart: bool = False  # whether `compute_gradients` is a separate function, which is not inlined
    early_exit: bool = True  # whether the loop leaves at a non-finite step: False for GPUs

    def __post_init__(self) -> None:
        self.traces = 0
        compute: Callable = functools.partial(
            self.step.compute_gradients, has_padding=self.feed.has_padding
        )
        self._apply_gradients: Callable = self.step.apply_gradients
        if self.jit == "step":
            update = _compiled(self.step.update)
            self._apply_gradients = functools.partial(self._apply_gradients, update=update)
            compute = _compiled(compute) if self.step.compiled_gradients else compute
        if self.apart:
            compute = tf.function(
                compute, autograph=False, experimental_attributes={"_noinline": True}
            )
        self._placement = Placement(self.strategy, self.early_exit, compiled=self.jit == "loop")
        self._updater = LoopStateUpdater(self.step.schedule, self.state.loss_scale, self.early_exit)
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
            cause = reason(error)
            message = f"training failed after step {before}: {cause}{xla.failure(self.jit, cause)}"
            raise StepError(message, before) from error
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
          The number of steps computed, int32 [], and taken, int64 []; whether the last step taken
          was finite, bool []; then the number of log points, the rows and the watched values, as
          `_steps` returns them.
        """
        state, scale = self.state, self.state.loss_scale
        with self._placement.on_host():
            steps, every, last = tf.unstack(request)
            step, sums = state.step + 0, state.sums + 0
            plateau = self.step.schedule.plateau
            factor = None if plateau is None else plateau(step)
            bounds = step, tf.cast(steps, tf.int32), every, last
            start = step - state.updates, factor, step, sums, scale.read()
        skipped, factor, first = self._placement.beside_verdict(self._updater.first, *start)
        args = LoopArgs(*bounds, skipped, factor)
        take = _compiled(self._steps) if self.jit == "loop" else self._steps
        computed, now, *logged = take(args, first, given)
        now = self._placement.of_first_replica(now)
        with self._placement.on_host():
            taken = tf.cast(now.taken[0] if now.taken else computed, tf.int64)
            reached, skipped = args.first + taken, args.first - state.updates
            state.updates.assign(updates(reached, now.finite, skipped))
        state.step.assign(reached)
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
          The number of steps computed, int32 []; the final `LoopState`; the number of log points
          reached, int32 []; the rows, float64 [maximum log points + 1, 4 + sums], of which only as
          many are valid as log points were reached; and `metrics.step_watched` of each step,
          float32 [MAX_WATCHED, 2], or [0, 2] if not recorded.
        """
        one_step = functools.partial(self._one_step, args, given)

        def to_log_point(
            index: tf.Tensor,
            now: LoopState,
            passed: tf.Tensor,
            rows: tf.TensorArray,
            *watched: tf.TensorArray,
        ) -> tuple[Any, ...]:
            with self._placement.on_host():
                index64 = tf.cast(index, tf.int64)
                step = args.first + index64
                steps = tf.minimum(args.every - step % args.every, args.last - step)
                # At least one step, whatever the arguments are; otherwise the loop never ends.
                point = index64 + tf.maximum(steps, 1)
                end = tf.cast(tf.minimum(tf.cast(args.steps, tf.int64), point), tf.int32)
            index, now, *recorded = self._while_finite(end, one_step, (index, now, *watched))
            row = self._placement.beside_verdict(
                self._updater.log_row, now, args.skipped, args.factor
            )
            with self._placement.on_host():
                # The last row of a call that ends between two log points is not counted.
                passed_now = tf.cast(tf.cast(index, tf.int64) == point, tf.int32)
            with self._placement.on_device():
                rows = rows.write(passed, self._placement.of_first_replica(row))
            return index, now, passed + passed_now, rows, *recorded

        with self._placement.on_device():
            length = len(LogPoint._fields) - 1 + self.state.sums.shape[0]
            rows = tf.TensorArray(tf.float64, self._most_points + 1, element_shape=[length])
            # Recording takes time in each step, so it is optional.
            watched = [tf.TensorArray(tf.float32, MAX_WATCHED, element_shape=[2])] * self.watched
        start = tf.constant(0), first, tf.constant(0), rows, *watched
        index, now, passed, rows, *watched = self._while_finite(args.steps, to_log_point, start)
        with self._placement.on_device():
            losses = watched[0].stack() if watched else tf.zeros([0, 2])
            return index, now, passed, rows.stack(), losses

    def _one_step(
        self,
        args: LoopArgs,
        given: object,
        index: tf.Tensor,
        now: LoopState,
        *watched: tf.TensorArray,
    ) -> tuple[Any, ...]:
        """Takes one step on all replicas.

        Args:
          args: constants of the call.
          given: input of the graph from `Feed.open`.
          index: number of earlier steps of the call, int32 [].
          now: loop-carried values before the step.
          *watched: one array of the losses and gradient norms of the steps so far, or none.

        Returns:
          The index and the `LoopState` after the step, then `watched` with the loss and gradient
          norm of the step.
        """
        context = self._placement.beside_verdict(
            self._updater.context, now, args.skipped, args.factor
        )
        total = self._accumulation.total(self.feed.next(given), context.step, context)
        result = self.strategy.run(self._apply_gradients, args=(total, context))
        # After the reduction, all replicas hold the same values.
        of_first = self._placement.of_first_replica(result)
        result = of_first if self.early_exit else result
        after = self._placement.beside_verdict(self._updater.after, now, *result)
        with self._placement.on_device():
            watched = tuple(
                each.write(index, metrics.step_watched(of_first.sums)) for each in watched
            )
        return index + 1, after, *watched

    def _while_finite(self, end: tf.Tensor, body: Callable, start: tuple[Any, ...]) -> list[Any]:
        """Repeats `body` until `end`, or a non-finite step; returns the final loop variables.

        Without early exit, a non-finite step does not end the loop.

        Args:
          end: index of the step in the call to stop before, int32 [].
          body: takes the current loop variables and returns new ones, after one or more steps.
          start: the first loop variables: the index of a step, a `LoopState`, and any others.
        """

        def condition(index: tf.Tensor, now: LoopState, *_: Any) -> tf.Tensor:
            # TensorFlow keeps int32 on the host, on a GPU too.
            return (index < end) & now.finite if self.early_exit else index < end

        return tf.while_loop(condition, body, start, parallel_iterations=1)


def _compiled(function: Callable) -> Callable:
    return tf.function(function, autograph=False, jit_compile=True)
