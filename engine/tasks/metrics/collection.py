"""Metrics that a NumPy function computes from all examples of a split, instead of from sums."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.tasks.metrics.base import Metric


class Collected(Metric):
    """Metric computed from all examples of a split at once; `collected` creates it. It has no sums.

    Attributes:
      weighted: whether the function has a parameter `weights`, for the weights of the examples.
      max_bytes: maximum size of the collected arrays of a split, in bytes.

    Raises:
      ValueError: if `better` is neither "higher" nor "lower".
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
        """Returns the result of the function as a float, which may be nan.

        Args:
          arrays: weights, float32 [examples], only if `weighted`; then the arguments of the metric,
            [examples, ...] each.

        Raises:
          TypeError, ValueError: if the function does not return a number.
          Exception: any exception that the function raises.
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
    """Returns a metric that a function computes from all examples of a split at once.

    Use it for a metric that is not a function of sums, such as mean average precision. Evaluation
    collects the arguments of the metric from the task, each example once and in the order of the
    split, on any number of replicas; padding is left out. Every worker then calls the function, and
    all workers use the value of the chief.

    Training only adds sums, so this metric has no value for the training split: its curve shows the
    validation split, and `--monitor` accepts it as validation_NAME.

    Args:
      function: takes the arguments of the metric, such as labels and predictions, as NumPy arrays
        [examples, ...] of the task's dtype (float32 for float16 and bfloat16), and returns a
        number. If it has a parameter `weights`, it gets the weights of the examples by that name,
        float32 [examples], 1 if the task returns no weights.
      better: direction that `--monitor` prefers, "higher" or "lower".
      percentage: whether the value is displayed as a percentage.
      max_bytes: maximum size of the arrays of a split, in bytes; a run with larger arrays raises
        ValueError before training. Each worker holds the arrays in host memory while it evaluates.
        Collecting takes about 100 MiB more, or several times the size of the values of one global
        batch, at 8 bytes each, if that is larger.

    Raises:
      ValueError: if `better` is neither "higher" nor "lower".
    """
    return Collected(function, better, percentage, max_bytes)
