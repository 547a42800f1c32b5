"""The steps of a call, in the graph, in stretches from one point of the curves to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from engine import metrics, points
from engine.numerics.precision import Scale
from engine.pieces import Pieces
from engine.points import Point
from engine.state import TrainState
from engine.step import At, Step
from pipelines import Feed

MOST_WATCHED = 4096  # steps of a call whose losses and norms it has room for


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


def updates(now: Now, call: Call) -> tf.Tensor:
    """Steps so far that moved the weights, int64 []: in a call only its last one may not have."""
    return now.step - call.skipped - tf.cast(~now.good, tf.int64)


class Stretches:
    """Steps until the end of a call, or until one is bad.

    Numbers go round in the loop, and into the state when it is done: a variable a step costs.

    Args:
      strategy: over whose replicas a step is taken.
      state: whose weights the steps move.
      feed: what they see.
      step: what each replica does.
      contribute: what a piece adds to the sums, `step.contribute` or that compiled.
      act: what is done with the reduced sums, `step.act` or that compiled.
      watched: whether the loss of each step is given, and its gradient's norm.
      xla: whether XLA compiles all of it.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        state: TrainState,
        feed: Feed,
        step: Step,
        *,
        contribute: Callable,
        act: Callable,
        watched: bool,
        xla: bool,
    ) -> None:
        self._strategy, self._state, self._feed, self._step = strategy, state, feed, step
        self._act, self._watched, self._xla = act, watched, xla
        self._pieces = Pieces(strategy, feed, step.zeros, contribute)

    def take(self, call: Call, first: Now, given: object) -> tuple[Any, ...]:
        """Takes those up to a point, notes it down, and so on: between points that costs nothing.

        Args:
          call: what is asked for.
          first: where it begins.
          given: what the feed was opened with.

        Returns:
          Now, how many points were passed, their rows, float64 [points, fields], and
          `metrics.step_watched` of each step, float32 [MOST_WATCHED, 2], or none of any.
        """

        def stretch(
            now: Now, seen: tf.Tensor, rows: tf.TensorArray, *told: tf.TensorArray
        ) -> tuple[Any, ...]:
            with on_host(self._xla):
                to_point = tf.minimum(call.every - now.step % call.every, call.last - now.step)
                # A stretch is a step or more, whatever is asked for: else this loop has no end.
                point = now.step + tf.maximum(to_point, 1)
                end = tf.minimum(call.end, point)
            now, *written = self._stretch(call, first.step, now, end, given, *told)
            with on_host(self._xla):
                row = points.row(
                    step=now.step,
                    updates=updates(now, call),
                    loss_scale=self._state.loss_scale.value_of(now.scale),
                    learning_rate=self._step.rate(now.step - 1),
                    sums=now.sums,
                )
                # What is noted down elsewhere than at a point is written over.
                rows = rows.write(seen, row)
                return now, seen + tf.cast(now.step == point, tf.int32), rows, *written

        with on_host(self._xla):
            length = len(Point._fields) - 1 + first.sums.shape[0]
            rows = tf.TensorArray(tf.float64, points.MOST + 1, element_shape=[length])
            start = first, tf.constant(0), rows, *self._told()
        now, seen, rows, *told = tf.while_loop(
            lambda now, *_: self._goes_on(now, call.end), stretch, start, parallel_iterations=1
        )
        return now, seen, rows.stack(), told[0].stack() if told else tf.zeros([0, 2])

    def _stretch(
        self,
        call: Call,
        first: tf.Tensor,
        now: Now,
        end: tf.Tensor,
        given: object,
        *told: tf.TensorArray,
    ) -> list[Any]:
        """Steps until `end`, or until one is bad."""

        def body(now: Now, *told: tf.TensorArray) -> tuple[Any, ...]:
            # A bad step ends the loop: until then all steps in it were updates.
            scale = self._state.loss_scale
            at = At(now.step, now.step - call.skipped, scale.value_of(now.scale))
            total = self._pieces.total(self._feed.next(given), at.step, at)
            outcome = self._strategy.run(self._act, args=(total, at))
            # After the reduction every replica holds the same: any one will do.
            good, sums = map(self._any, outcome)
            with on_host(self._xla):
                added = now.sums + tf.cast(sums, tf.float64)
                after = Now(
                    now.step + 1,
                    tf.where(good, added, now.sums),
                    scale.after(now.scale, good),
                    good,
                )
                place = tf.cast(now.step - first, tf.int32)
                return after, *(each.write(place, metrics.step_watched(sums)) for each in told)

        return tf.while_loop(
            lambda now, *_: self._goes_on(now, end), body, [now, *told], parallel_iterations=1
        )

    def _goes_on(self, now: Now, end: tf.Tensor) -> tf.Tensor:
        with on_host(self._xla):
            return (now.step < end) & now.good

    def _told(self) -> list[tf.TensorArray]:
        """Where losses and norms go; nowhere when they are not watched, because each costs."""
        return [tf.TensorArray(tf.float32, MOST_WATCHED, element_shape=[2])] * self._watched

    def _any(self, replicated: object) -> tf.Tensor:
        return self._strategy.experimental_local_results(replicated)[0]


def on_host(xla: bool) -> contextlib.AbstractContextManager:
    """Numbers about numbers belong to the host; what XLA compiles lies on one device."""
    return contextlib.nullcontext() if xla else tf.device("CPU:0")
