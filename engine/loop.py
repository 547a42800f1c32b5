"""N steps in the graph, N a tensor: one trace for a whole run (L6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from engine import metrics
from engine.pieces import Pieces
from engine.precision import Scale
from engine.scalars import whole
from engine.state import TrainState
from engine.step import At, Step
from pipelines import Feed, reason


class Now(NamedTuple):
    """What changes with every step besides the model and what follows it."""

    step: tf.Tensor  # int64 []
    sums: tf.Tensor  # float64, as TrainState.sums
    scale: tuple[Scale, ...]  # none where it is constant
    good: tf.Tensor  # bool []: whether the last step was finite


class Taken(NamedTuple):
    """What came of some steps.

    steps: how many were taken; all but the last were finite.
    good: whether the last was.
    losses: float32 [steps], of each; empty where they are not watched.
    """

    steps: int
    good: bool
    losses: np.ndarray


class Loop:
    """The compiled training loop.

    Args:
      strategy: over whose replicas a step is taken.
      state: what the steps move.
      feed: what they see.
      step: what each replica does.
      watched: whether the loss of each step is given.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        state: TrainState,
        feed: Feed,
        step: Step,
        watched: bool = False,
    ) -> None:
        self.traces = 0
        self._watched = watched
        self._strategy, self._state, self._feed, self._step = strategy, state, feed, step
        self._pieces = Pieces(strategy, feed, step.zeros, step.contribute)
        self._compiled = tf.function(self._counted, autograph=False)

    def run(self, steps: int) -> Taken:
        """Takes `steps` steps, which must lie in one epoch; the first that is bad ends it early.

        Raises:
          RuntimeError: when TensorFlow fails in one of them.
        """
        before = int(self._state.step)
        try:
            good, losses = self._compiled(tf.constant(whole(steps)), self._feed.open(before, steps))
        except tf.errors.OpError as error:
            raise RuntimeError(f"training failed after step {before}: {reason(error)}") from error
        taken = Taken(int(self._state.step) - before, bool(good), losses.numpy())
        assert 0 < taken.steps <= steps and (taken.steps == steps or not taken.good), (
            f"the loop was asked for {steps} steps and took {taken.steps}"
        )
        return taken

    def fed(self, feed: Feed) -> Loop:
        """The same steps on what another feed gives."""
        return Loop(self._strategy, self._state, feed, self._step, self._watched)

    def graph(self, *, anew: bool = False) -> Any:
        """A call as TensorFlow's ConcreteFunction, to be looked at; nothing runs.

        Args:
          anew: traced once more, apart from what `run` calls; not counted in `traces`.
        """
        opened = self._feed.open(int(self._state.step), 1)
        function = tf.function(self._steps, autograph=False) if anew else self._compiled
        return function.get_concrete_function(tf.constant(1, tf.int64), opened)

    def _counted(self, steps: tf.Tensor, opened: object) -> tuple[tf.Tensor, tf.Tensor]:
        self.traces += 1
        return self._steps(steps, opened)

    def _steps(self, steps: tf.Tensor, opened: object) -> tuple[tf.Tensor, tf.Tensor]:
        """(whether the last step was good, float32 losses of the steps that were taken)."""
        state, scale = self._state, self._state.loss_scale

        def body(now: Now, *losses: tf.TensorArray) -> tuple[Now, ...]:
            # A bad step ends the loop: until then all steps in it were updates.
            at = At(now.step, now.step - skipped, scale.value_of(now.scale))
            total = self._pieces.total(self._feed.next(opened), at.step, at)
            outcome = self._strategy.run(self._step.act, args=(total, at))
            # After the reduction every replica holds the same: any one will do.
            good, sums = map(self._any, outcome)
            with _on_host():
                added = now.sums + tf.cast(sums, tf.float64)
                after = Now(
                    now.step + 1,
                    tf.where(good, added, now.sums),
                    scale.after(now.scale, good),
                    good,
                )
                place, loss = tf.cast(now.step - first.step, tf.int32), metrics.step_loss(sums)
                return after, *(each.write(place, loss) for each in losses)

        # Numbers go round in the loop and into the state when it is done: a variable a step costs.
        with _on_host():
            started = tf.constant(True)
            first = Now(state.step + 0, state.sums + 0, scale.read(), started)
            skipped = first.step - state.updates
            end = first.step + steps

        def goes_on(now: Now, *_: object) -> tf.Tensor:
            with _on_host():
                return (now.step < end) & now.good

        last, *losses = tf.while_loop(
            goes_on, body, [first, *self._losses()], parallel_iterations=1
        )
        state.step.assign(last.step)
        state.updates.assign(last.step - skipped - tf.cast(~last.good, tf.int64))
        state.sums.assign(last.sums)
        scale.write(last.scale)
        return last.good, losses[0].stack() if losses else tf.zeros([0])

    def _losses(self) -> list[tf.TensorArray]:
        """Where losses go; nowhere when they are not watched, because each costs."""
        if not self._watched:
            return []
        with _on_host():
            return [tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[])]

    def _any(self, replicated: object) -> tf.Tensor:
        return self._strategy.experimental_local_results(replicated)[0]


def _on_host() -> tf.device:
    return tf.device("CPU:0")


class Pace:
    """How many steps one call of the graph takes.

    A signal is heard between two calls, and progress is shown then, so a call should take about
    `seconds`; the first one takes a single step, to be traced and timed. The length never changes
    what is computed.

    Args:
      steps_per_loop: a fixed number of steps; 0: as many as take `seconds`.
      seconds: that one call should take.
      agree: makes of each worker's number the one that all take.
    """

    def __init__(
        self,
        steps_per_loop: int,
        seconds: float = 0.2,
        agree: Callable[[int], int] = lambda steps: steps,
    ) -> None:
        self._fixed, self._seconds, self._agree = steps_per_loop, seconds, agree
        self._steps = steps_per_loop or 1
        self._calls = 0

    def steps(self, most: int) -> int:
        """Steps of the next call, at most `most`."""
        return self._agree(max(1, min(self._steps, most)))

    def took(self, steps: int, seconds: float) -> None:
        """Learns from a call; the first one is not counted, because it traces."""
        self._calls += 1
        if not self._fixed and self._calls > 1:
            fitting = int(steps * self._seconds / max(seconds, 1e-6))
            self._steps = max(1, min(fitting, 4 * self._steps))  # grow by steps: one may be a fluke


def stopwatch() -> float:
    """Seconds on a clock that never goes back."""
    return time.perf_counter()
