"""The base class of metrics, weighted means, and helpers of the families of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


class Metric:
    """Base class of metrics: sums over examples, and the number that follows from the sums.

    Attributes:
      size: number of sums.
      better: direction that `--monitor` prefers, "higher" or "lower".
      percentage: whether the value is displayed as a percentage.
      float64: whether sums of a batch need float64, as where large sums cancel; otherwise they are
        rounded to float32 before they are added to those of other batches, in float64.
    """

    size: int
    better: str = "higher"
    percentage: bool = False
    float64: bool = False

    def sums(self, weights: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        """Returns the sums over the rows of a micro-batch, float64 [size]; in the graph.

        Args:
          weights: weights of the rows, float64 [rows]; 0 in padding rows.
          *arguments: what the task gives for this metric, [rows, ...] each; zeros in padding rows.
        """
        raise NotImplementedError

    def result(self, sums: np.ndarray) -> float:
        """Returns the value from the total of the sums, float64 [size]; nan if it is undefined."""
        raise NotImplementedError


class WeightedMean(Metric):
    """Base class of ratios of two sums, such as a mean: the sum of the weights is the second."""

    size = 2

    def result(self, sums: np.ndarray) -> float:
        return float(divided(sums[0], sums[1]))


class Mean(WeightedMean):
    """Weighted mean of a value of each row or position.

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
    """Ratio of the sums of two values of each row or position; arguments as those of `Mean`."""

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
    """Weighted mean of a function of labels and predictions that returns a value of each row."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def sums(self, weights: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        return mean_sums(weights, self.function(*arguments), None)


class MeanOf(WeightedMean):
    """Base class of means of a value that labels and predictions of a position give."""

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        """Returns the value of each row or position."""
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
    """Exponential of the weighted mean of a value in nats, such as the loss of a language model."""

    def __init__(self) -> None:
        super().__init__(better="lower")

    def result(self, sums: np.ndarray) -> float:
        mean = super().result(sums)
        return math.exp(mean) if mean < 700 else math.inf if mean == mean else mean


def divided(numerator: Any, denominator: Any) -> np.ndarray:
    """Divides float64 arrays; nan where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    undefined = np.full(numerator.shape, math.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def position_weights(weights: tf.Tensor, like: tf.Tensor, positions: tf.Tensor | None) -> tf.Tensor:
    """Returns the weights of positions, float64 of the shape of `like`, [rows, ...].

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
    """Returns the sum of weight * value, and that of the weights, float64 [2]."""
    weights = position_weights(weights, values, positions)
    return stacked_sums(weights * tf.cast(values, tf.float64), weights)


def stacked_sums(*terms: tf.Tensor) -> tf.Tensor:
    """Returns the sum of the elements of each term, float64 [terms]; terms are float64 [...]."""
    return tf.stack([tf.reduce_sum(term) for term in terms])


def sums_by(index: tf.Tensor, terms: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the sum of the terms at each index, float64 [size]; an index outside adds nothing."""
    index, terms = tf.reshape(index, [-1]), tf.reshape(terms, [-1])
    index = tf.where((index >= 0) & (index < size), index, -1)
    return tf.math.unsorted_segment_sum(terms, index, size)


def predicted_classes(labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """Returns the predicted classes, int32 of the shape of the labels; see `Accuracy`."""
    if predictions.shape.rank == labels.shape.rank:
        return tf.cast(predictions, tf.int32)
    return tf.argmax(predictions, -1, output_type=tf.int32)
