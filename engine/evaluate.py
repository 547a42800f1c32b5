"""The whole split, every example once (L8)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from engine import metrics
from engine.pace import Pace, stopwatch
from engine.pieces import Pieces
from engine.reduction import Tensors, reductions
from engine.scalars import whole
from engine.task import Task
from pipelines import Batch, Feed, reason


class Evaluation:
    """The compiled evaluation of one split.

    Args:
      strategy: over whose replicas a step is taken.
      feed: of the split, in file order.
      step: Batch -> [its sums], in replica context.
      task: names the metrics.
      agree: as in `Pace`.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        feed: Feed,
        step: Callable[[Batch], Tensors],
        task: Task,
        agree: Callable[[int], int] = lambda steps: steps,
    ) -> None:
        self.traces = 0
        self._strategy, self._feed, self._task = strategy, feed, task
        self._size = metrics.size(task.metrics)
        self._pieces = Pieces(strategy, feed, lambda: [tf.zeros([self._size])], step)
        _, self._reduce = reductions(feed.layout.shards)
        self._pace = Pace(0, agree=agree)
        self._compiled = tf.function(self._steps, autograph=False)

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> dict[str, float | int] | None:
        """Means over the split, and its number of examples; None when interrupted.

        Args:
          interrupted: asked now and then whether to give up.

        Raises:
          RuntimeError: when TensorFlow fails.
        """
        sums = np.zeros(self._size)
        step, end = 0, self._feed.steps_per_epoch
        while step < end:
            if interrupted():
                return None
            steps = self._pace.steps(end - step)
            started = stopwatch()
            opened = self._feed.open(step, steps)
            start = tf.constant(whole(step))
            try:
                sums += self._compiled(start, tf.constant(whole(steps)), opened).numpy()
            except tf.errors.OpError as error:
                raise RuntimeError(f"evaluation failed in batch {step}: {reason(error)}") from error
            self._pace.took(steps, stopwatch() - started)
            step += steps
        means = metrics.means(sums, self._task.metrics)
        # L8: the count is of rows that were scored, so it proves that none was lost or doubled.
        assert means["examples"] == self._feed.examples, (
            f"evaluation scored {means['examples']} of {self._feed.examples} examples"
        )
        return means

    def _steps(self, start: tf.Tensor, steps: tf.Tensor, opened: object) -> tf.Tensor:
        self.traces += 1
        pieces, strategy = self._pieces, self._strategy

        def body(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            found = pieces.total(self._feed.next(opened), step)
            sums = strategy.run(self._reduce, args=(found,))[0]
            sums = strategy.experimental_local_results(sums)[0]
            return step + 1, total + tf.cast(sums, tf.float64)

        _, total = tf.while_loop(
            lambda step, _: step < start + steps,
            body,
            [start, tf.zeros([self._size], tf.float64)],
            parallel_iterations=1,
        )
        return total
