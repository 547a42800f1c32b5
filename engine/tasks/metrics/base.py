"""Base classes of metrics, metrics that are weighted means, and functions that compute sums."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


class Metric:
    """Base class of metrics, whose value is a function of sums over examples.

    Attributes:
      size: number of sums.
      better: direction that `--monitor` prefers, "higher" or "lower".
      percentage: whether the value is displayed as a percentage.
      float64: whether the sums of a global batch must be added in float64, for example because
        `result` subtracts large sums. Otherwise the sums of a micro-batch are rounded to float32.
        The sums of global batches are added in float64 in both cases.
    """

    size: int
    better: str = "higher"
    percentage: bool = False
    float64: bool = False

    def sums(self, weights: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        """Returns the sums over the rows of a micro-batch, float64 [size]; called in the graph.

        Metrics must implement this method.

        Args:
          weights: weights of the rows, float64 [rows]; 0 in padding rows.
          *arguments: arguments that the task returns for this metric, [rows, ...] each; zeros in
            padding rows.
        """
        raise NotImplementedError

    def result(self, sums: np.ndarray) -> float:
        """Returns the value of the metric; nan if it is undefined.

        Metrics must implement this method, except those that `tl.metrics.collected` returns.

        Args:
          sums: total of the sums over all examples, float64 [size].
        """
        raise NotImplementedError


class WeightedMean(Metric):
    """Base class of metrics that are the ratio of two sums; nan if the second sum is 0.

    For a weighted mean, these are the sum of weight * value and the sum of the weights.
    """

    size = 2

    def result(self, sums: np.ndarray) -> float:
        return float(divided(sums[0], sums[1]))


class Mean(WeightedMean):
    """Weighted mean of a value of each row or position.

    The arguments are the values, [rows, ...], and optionally weights of the positions, of the same
    shape.

    Args:
      better: direction that `--monitor` prefers, "higher" or "lower".
      percentage: whether the value is displayed as a percentage.
    """

    def __init__(self, better: str = "higher", percentage: bool = False) -> None:
        self.better, self.percentage = better, percentage

    def sums(
        self, weights: tf.Tensor, values: tf.Tensor, positions: tf.Tensor | None = None
    ) -> tf.Tensor:
        return mean_sums(weights, values, positions)


class Ratio(WeightedMean):
    """Ratio of the weighted sums of two values of each row or position.

    The arguments are values and divisors, [rows, ...] each, and optionally weights of the
    positions, of the same shape. The value is nan if the weighted sum of the divisors is 0.

    Args:
      better: direction that `--monitor` prefers, "higher" or "lower".
      percentage: whether the value is displayed as a percentage.
    """

    def __init__(self, better: str = "higher", percentage: bool = False) -> None:
        self.better, self.percentage = better, percentage

    def sums(
        self,
        weights: tf.Tensor,
        values: tf.Tensor,
        divisors: tf.Tensor,
        positions: tf.Tensor | None = None,
    ) -> tf.Tensor:
        weights = position_weights(weights, values, positions)
        values, divisors = tf.cast(values, tf.float64), tf.cast(divisors, tf.float64)
        return stacked_sums(weights * values, weights * divisors)


class MeanOfFunction(WeightedMean):
    """Weighted mean of the values that a function returns.

    Args:
      function: takes the arguments of the metric, such as labels and predictions, in the graph;
        returns a value for each row or position, [rows, ...]. The function gets only the arguments
        that it requires. If the task returns one argument more, that argument is the weights of the
        positions; it is not used if the values have the shape [rows].
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._arguments = _required_arguments(function)

    def sums(self, weights: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        values = self.function(*arguments[: self._arguments])
        of_positions = values.shape.rank != 1 and len(arguments) == self._arguments + 1
        return mean_sums(weights, values, arguments[-1] if of_positions else None)


class MeanOf(WeightedMean):
    """Base class of weighted means of a value computed from the label and the prediction."""

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        """Returns the value of each row or position, [rows, ...].

        Subclasses must implement this method.

        Args:
          labels: labels, [rows, ...].
          predictions: predictions, [rows, ...].
        """
        raise NotImplementedError

    def sums(
        self,
        weights: tf.Tensor,
        labels: tf.Tensor,
        predictions: tf.Tensor,
        positions: tf.Tensor | None = None,
    ) -> tf.Tensor:
        return mean_sums(weights, self.values(labels, predictions), positions)


class Perplexity(Mean):
    """Exponential of the weighted mean of a value in nats, such as the loss of a language model.

    The arguments are those of `Mean`. If the mean is 700 nats or more, the perplexity is inf.
    """

    def __init__(self) -> None:
        super().__init__(better="lower")

    def result(self, sums: np.ndarray) -> float:
        mean = super().result(sums)
        return math.exp(mean) if mean < 700 else math.inf if mean == mean else mean


class BitsPerToken(Mean):
    """Weighted mean of a value in nats, as bits: of a language model's loss, bits per token.

    The arguments are those of `Mean`.
    """

    def __init__(self) -> None:
        super().__init__(better="lower")

    def result(self, sums: np.ndarray) -> float:
        return super().result(sums) / math.log(2)


def divided(numerator: Any, denominator: Any) -> np.ndarray:
    """Returns numerator / denominator, broadcast, as float64; nan where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    undefined = np.full(numerator.shape, math.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def _required_arguments(function: Callable[..., Any]) -> int:
    """Returns the number of parameters of a function that have no default.

    Returns `sys.maxsize` if the function has variadic positional parameters or no signature.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return sys.maxsize
    if any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters):
        return sys.maxsize
    return sum(each.default is inspect.Parameter.empty for each in parameters)


def position_weights(weights: tf.Tensor, like: tf.Tensor, positions: tf.Tensor | None) -> tf.Tensor:
    """Returns the weight of each position, float64 of the shape of `like`, [rows, ...].

    This is the weight of the row, times the weight in `positions` if given.

    Args:
      weights: weights of rows, float64 [rows].
      like: tensor with an element for each position.
      positions: further weights of positions, of the shape of `like`; None: 1.
    """
    weights = tf.reshape(weights, [-1, *[1] * (like.shape.rank - 1)])
    if positions is not None:
        return weights * tf.cast(positions, tf.float64)
    return tf.broadcast_to(weights, tf.shape(like))


def mean_sums(weights: tf.Tensor, values: tf.Tensor, positions: tf.Tensor | None) -> tf.Tensor:
    """Returns the sum of weight * value over all positions and the sum of the weights, float64 [2].

    Args:
      weights: weights of rows, float64 [rows].
      values: value of each position, [rows, ...].
      positions: further weights of positions, of the shape of `values`; None: 1.
    """
    weights = position_weights(weights, values, positions)
    return stacked_sums(weights * tf.cast(values, tf.float64), weights)


def stacked_sums(*terms: tf.Tensor) -> tf.Tensor:
    """Returns the sum of all elements of each term, float64 [number of terms].

    Args:
      *terms: float64 tensors of any shapes.
    """
    return tf.stack([tf.reduce_sum(term) for term in terms])


def sums_by(index: tf.Tensor, terms: tf.Tensor, size: int) -> tf.Tensor:
    """Returns, for each index from 0 to `size` - 1, the sum of the terms that have this index.

    Args:
      index: integer index of each term; a term whose index is not in 0 .. size - 1 is left out.
      terms: float64 terms, in the shape of `index`.
      size: number of sums.

    Returns:
      The sums, float64 [size].
    """
    # A GPU compares and reshapes int32 on the host.
    index, terms = tf.reshape(tf.cast(index, tf.int64), [-1]), tf.reshape(terms, [-1])
    index = tf.where((index >= 0) & (index < size), index, -1)
    return tf.math.unsorted_segment_sum(terms, index, size)


def predicted_classes(labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """Returns the predicted classes, int64 of the shape of the labels, [rows, ...].

    Predictions of the rank of the labels are classes. Otherwise they are scores,
    [rows, ..., classes], and the predicted class is the one with the largest score.
    """
    if predictions.shape.rank == labels.shape.rank:
        return tf.cast(predictions, tf.int64)
    return tf.argmax(predictions, -1)
