"""Evaluation of a whole split, which scores each example exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from engine.core import metrics
from engine.core.accumulation import Accumulation
from engine.core.collected import Collection, Rows
from engine.core.steps_per_loop import StepsPerLoop, stopwatch
from engine.distributed.reduction import Tensors, reductions
from engine.runtime.errors import EvaluationError
from engine.runtime.scalars import as_int64
from engine.tasks.task import Task
from pipelines import Batch, Feed, opened, reason


class Evaluation:
    """Evaluation of one split in a compiled loop: mean loss and metrics over its examples.

    Attributes:
      traces: number of traces of the loop.
      step: function of a step, as `evaluation_step` returns it.
      overlapping: number of steps that the loop may compute at the same time.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        feed: Feed,  # in file order
        step: Callable[[Batch], tuple[tf.Tensor, Rows]],  # as `evaluation_step` returns it
        task: Task,
        agree: Callable[[int], int] = lambda steps: steps,  # as in `StepsPerLoop`
    ) -> None:
        self.traces = 0  # number of traces of the loop
        self._strategy, self._feed, self._task = strategy, feed, task
        self._size = metrics.size(task.metrics)
        self.step, self._agree = step, agree
        self._collection = Collection(task.metrics, feed)
        self._accumulation = Accumulation(strategy, feed, self._zeros, self._compute)
        _, self._reduce = reductions(feed.layout.shards)
        # One step rarely keeps all cores of a device busy, so on one replica, two steps overlap.
        # Several replicas communicate in every step, so they must take one at a time.
        self.overlapping = 2 if strategy.num_replicas_in_sync == 1 else 1
        self._steps_per_loop = StepsPerLoop(0, agree=agree)
        self._compiled = tf.function(self._steps, autograph=False)

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> dict[str, float | int] | None:
        """Evaluates the split; returns `metrics.means`: loss and metrics by name, and "examples".

        Args:
          interrupted: called before each call of the graph; returns whether to stop.

        Returns:
          The values by name; None if `interrupted` returned True.

        Raises:
          EvaluationError: if TensorFlow fails.
          RuntimeError: if the feed cannot read its examples, or returns an invalid number of steps.
          ValueError: if the model, task or a metric is found invalid when the loop is traced.
          UserCodeError: if the function of a collected metric fails.
          AssertionError: if an example was lost or scored twice.
        """
        sums, collection = np.zeros(self._size), self._collection
        collection.clear()
        step, end = 0, self._feed.steps_per_epoch
        while step < end:
            if interrupted():
                return None
            started = stopwatch()
            try:
                most = min(end - step, collection.max_steps)
                steps, given = opened(self._feed, step, self._steps_per_loop.steps(most))
                start = tf.constant(as_int64(step))
                total, *rows = self._compiled(start, tf.constant(as_int64(steps)), given)
                sums += total.numpy()
                collection.add([each.numpy() for each in rows])
            except tf.errors.OpError as error:
                message = f"evaluation failed in batch {step}: {reason(error)}"
                raise EvaluationError(message, self._feed.examples) from error
            self._steps_per_loop.took(steps, stopwatch() - started)
            step += steps
        collected = collection.results(self._agree)
        means = metrics.means(sums, self._task.metrics, collected)
        # L8: the sum of the masks detects a lost or repeated example.
        assert means["examples"] == self._feed.examples, (
            f"evaluation scored {means['examples']} of {self._feed.examples} examples"
        )
        return means

    def graph(self) -> Any:
        """Returns the ConcreteFunction of the loop that `run` calls; evaluates nothing.

        Raises:
          ValueError: if the model, task or a metric is found invalid when the loop is traced.
        """
        _, given = self._feed.open(0, 1)
        start, steps = (tf.constant(as_int64(each)) for each in (0, 1))
        return self._compiled.get_concrete_function(start, steps, given)

    def _compute(self, batch: Batch) -> Tensors:
        """Returns the sums over a micro-batch, then the packed rows for collected metrics."""
        sums, rows = self.step(batch)
        return [sums, *self._collection.packed(rows, batch)]

    def _zeros(self) -> Tensors:
        return [metrics.zeros(self._task.metrics), *self._collection.zeros()]

    def _trace_beside(self, start: tf.Tensor, given: object) -> None:
        """Traces a step into a graph that is not executed, so that `_zeros` knows the shapes."""

        def step() -> Any:
            element = self._feed.next(given)
            return self._strategy.run(
                lambda e: self._compute(self._feed.batch(e, start, 0, 0)), args=(element,)
            )

        tf.function(step, autograph=False).get_concrete_function()

    def _steps(self, start: tf.Tensor, steps: tf.Tensor, given: object) -> list[tf.Tensor]:
        """Evaluates consecutive steps in the graph, and counts the traces.

        Args:
          start: index of the first step, int64 [].
          steps: number of steps, int64 [].
          given: input of the graph from `Feed.open`.

        Returns:
          A list of the sums over all steps, float64 [`metrics.size`], and, if the task has
          collected metrics, the reduced result of `Collection.packed` for each step, int64 [steps,
          length, 1 + values].
        """
        self.traces += 1
        accumulation, strategy = self._accumulation, self._strategy
        if self._collection and self._feed.layout.local_micro_batches > 1:
            self._trace_beside(start, given)
        with tf.device("CPU:0"):
            count = tf.cast(steps, tf.int32)
        with self._beside_sums():
            arrays = [tf.TensorArray(tf.int64, count, element_shape=[None, None])] * bool(
                self._collection
            )

        def body(
            index: tf.Tensor,
            step: tf.Tensor,
            token: tf.Tensor,
            total: tf.Tensor,
            *arrays: tf.TensorArray,
        ) -> tuple[Any, ...]:
            # The token makes overlapping steps read from the feed in order.
            with tf.control_dependencies([token]):
                element = self._feed.next(given)
            parts = tf.nest.flatten(element) if self.overlapping > 1 else []
            with tf.control_dependencies(list(filter(tf.is_tensor, parts))):
                token = tf.identity(token)
            found = strategy.run(self._reduce, args=(accumulation.total(element, step),))
            sums, *rows = (strategy.experimental_local_results(each)[0] for each in found)
            with self._beside_sums():
                written = [a.write(index, each) for a, each in zip(arrays, rows, strict=True)]
            return index + 1, step + 1, token, total + tf.cast(sums, tf.float64), *written

        # The condition reads a count of int32, which TensorFlow keeps on the host: on a GPU, no
        # step waits for the device.
        zeros = tf.zeros([self._size], tf.float64)
        _, _, _, total, *arrays = tf.while_loop(
            lambda index, *_: index < count,
            body,
            [tf.constant(0), start, tf.constant(0), zeros, *arrays],
            parallel_iterations=self.overlapping,
        )
        with self._beside_sums():
            return [total, *(each.stack() for each in arrays)]

    def _beside_sums(self) -> contextlib.AbstractContextManager:
        """Returns the device scope of collected rows: where the sums of the first replica are."""
        if self._strategy.num_replicas_in_sync == 1:
            return contextlib.nullcontext()  # TensorFlow's default: the GPU, if there is one
        return tf.device(self._strategy.extended.worker_devices[0])
