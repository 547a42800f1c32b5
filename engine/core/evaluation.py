"""Evaluation of a whole split, which scores each example exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from engine.core import metrics
from engine.core.accumulation import Accumulation
from engine.core.steps_per_loop import StepsPerLoop, stopwatch
from engine.distributed.reduction import Tensors, reductions
from engine.runtime.scalars import as_int64
from engine.tasks.task import Task
from pipelines import Batch, Feed, opened, reason


class Evaluation:
    """Evaluation of one split in a compiled loop: mean loss and metrics over its examples."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        feed: Feed,  # in file order
        step: Callable[[Batch], Tensors],  # returns [`masked_sums`]; called in replica context
        task: Task,
        agree: Callable[[int], int] = lambda steps: steps,  # as in `StepsPerLoop`
    ) -> None:
        self.traces = 0  # number of traces of the loop
        self._strategy, self._feed, self._task = strategy, feed, task
        self._size = metrics.size(task.metrics)
        self._accumulation = Accumulation(
            strategy, feed, lambda: [metrics.zeros(task.metrics)], step
        )
        _, self._reduce = reductions(feed.layout.shards)
        # One step rarely keeps all cores of a device busy, so on one replica, two steps overlap.
        # Several replicas communicate in every step, so they must take one at a time.
        self._overlapping = 2 if strategy.num_replicas_in_sync == 1 else 1
        self._steps_per_loop = StepsPerLoop(0, agree=agree)
        self._compiled = tf.function(self._steps, autograph=False)

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> dict[str, float | int] | None:
        """Evaluates the split; returns `metrics.means`: loss and metrics by name, and "examples".

        `interrupted` is polled before each call of the graph; if True, `run` returns None.

        Raises:
          RuntimeError: if TensorFlow fails.
        """
        sums = np.zeros(self._size)
        step, end = 0, self._feed.steps_per_epoch
        while step < end:
            if interrupted():
                return None
            started = stopwatch()
            try:
                steps, given = opened(self._feed, step, self._steps_per_loop.steps(end - step))
                start = tf.constant(as_int64(step))
                sums += self._compiled(start, tf.constant(as_int64(steps)), given).numpy()
            except tf.errors.OpError as error:
                raise RuntimeError(f"evaluation failed in batch {step}: {reason(error)}") from error
            self._steps_per_loop.took(steps, stopwatch() - started)
            step += steps
        means = metrics.means(sums, self._task.metrics)
        # L8: the sum of the masks detects a lost or repeated example.
        assert means["examples"] == self._feed.examples, (
            f"evaluation scored {means['examples']} of {self._feed.examples} examples"
        )
        return means

    def graph(self) -> Any:
        """Returns the loop's ConcreteFunction, the one that `run` calls; evaluates nothing."""
        _, given = self._feed.open(0, 1)
        start, steps = (tf.constant(as_int64(each)) for each in (0, 1))
        return self._compiled.get_concrete_function(start, steps, given)

    def _steps(self, start: tf.Tensor, steps: tf.Tensor, given: object) -> tf.Tensor:
        self.traces += 1
        accumulation, strategy = self._accumulation, self._strategy

        def body(
            step: tf.Tensor, token: tf.Tensor, total: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # The token makes overlapping steps read from the feed in order.
            with tf.control_dependencies([token]):
                element = self._feed.next(given)
            parts = tf.nest.flatten(element) if self._overlapping > 1 else []
            with tf.control_dependencies(list(filter(tf.is_tensor, parts))):
                token = tf.identity(token)
            sums = strategy.run(self._reduce, args=(accumulation.total(element, step),))[0]
            sums = strategy.experimental_local_results(sums)[0]
            return step + 1, token, total + tf.cast(sums, tf.float64)

        *_, total = tf.while_loop(
            lambda step, *_: step < start + steps,
            body,
            [start, tf.constant(0), tf.zeros([self._size], tf.float64)],
            parallel_iterations=self._overlapping,
        )
        return total
