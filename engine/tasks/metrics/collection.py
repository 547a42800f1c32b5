"""Metrics that are no sums: functions, in NumPy, of what evaluation collected of a whole split."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.tasks.metrics.base import Metric


class Collected(Metric):
    """Metric of all examples of a split at once, which `collected` returns; it has no sums.

    Attributes:
      weighted: whether the function takes the weights of the examples.
      max_bytes: maximum size of what is collected of a split.
    """

    size = 0

    def __init__(
        self, function: Callable[..., Any], better: str, percentage: bool, max_bytes: int
    ) -> None:
        if better not in ("higher", "lower"):
            raise ValueError(f"tl.metrics.collected: better={better!r}: give 'higher' or 'lower'")
        self._function = function
        self.better, self.percentage, self.max_bytes = better, percentage, max_bytes
        try:
            self.weighted = "weights" in inspect.signature(function).parameters
        except (TypeError, ValueError):  # some functions of C have no signature
            self.weighted = False

    def sums(self, weights: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        return tf.zeros([0], tf.float64)

    def value(self, arrays: Sequence[np.ndarray]) -> float:
        """Returns the value of the function; nan if it is undefined.

        Args:
          arrays: weights, float32 [examples], only if `weighted`; then the arguments of the metric,
            [examples, ...] each.

        Raises:
          TypeError: if the function does not return a number.
        """
        weights = {"weights": arrays[0]} if self.weighted else {}
        found = self._function(*arrays[self.weighted :], **weights)
        shape = np.shape(found)
        if shape:
            raise TypeError(f"the function returns an array of shape {list(shape)}, not a number")
        return float(found)


def collected(
    function: Callable[..., Any],
    better: str = "higher",
    *,
    percentage: bool = False,
    max_bytes: int = 1 << 30,
) -> Metric:
    """Returns a metric that is no sum, such as mean average precision: a function of a whole split.

    Evaluation collects what the task gives for this metric, of each example once and in the order
    of the split, on any number of replicas; padding is left out. Every worker then calls the
    function, and all use the value of the first worker.

    Training adds sums alone, so this metric has no value of the training split: its curve is that
    of the validation split, and `--monitor` takes it as validation_NAME.

    Args:
      function: takes the arguments of the metric, such as labels and predictions, as NumPy arrays
        [examples, ...] of the task's dtype (float32 for float16 and bfloat16), and returns a
        number. If it has a parameter `weights`, it gets the weights of the examples by that name,
        float32 [examples], 1 where the task gives none.
      better: direction that `--monitor` prefers, "higher" or "lower".
      percentage: whether the value is displayed as a percentage.
      max_bytes: maximum size of the arrays of a split. Each worker holds them in its host memory
        while it evaluates; collecting takes some 100 MiB beside them, or several times what one
        batch has, with 8 bytes for each value.

    Raises:
      ValueError: if `better` is neither; and before training, if the arrays would be larger.
    """
    return Collected(function, better, percentage, max_bytes)
