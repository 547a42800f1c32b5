"""Metrics of predicted numbers: errors, and the coefficient of determination."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from engine.tasks.metrics.base import MeanOf, Metric, divided, position_weights, stacked_sums


class MeanSquaredError(MeanOf):
    """Weighted mean of (prediction - label)^2 over all positions.

    Labels and predictions are numbers of the same shape, [rows, ...].
    """

    better = "lower"

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        return tf.square(tf.cast(predictions, tf.float64) - tf.cast(labels, tf.float64))


class RootMeanSquaredError(MeanSquaredError):
    """Square root of the weighted mean of (prediction - label)^2 over all positions.

    Labels and predictions are numbers of the same shape, [rows, ...].
    """

    def result(self, sums: np.ndarray) -> float:
        return math.sqrt(super().result(sums))


class MeanAbsoluteError(MeanOf):
    """Weighted mean of the absolute value of (prediction - label) over all positions.

    Labels and predictions are numbers of the same shape, [rows, ...].
    """

    better = "lower"

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        return tf.abs(tf.cast(predictions, tf.float64) - tf.cast(labels, tf.float64))


class R2(Metric):
    """Coefficient of determination, 1 - sum of squared errors / sum of squared label deviations.

    The deviations are those of the labels from their mean. Both sums are weighted and over all
    positions. The value is nan if all labels are equal or all weights are 0. Labels and predictions
    are numbers of the same shape, [rows, ...].
    """

    size = 4
    float64 = True

    def sums(
        self,
        weights: tf.Tensor,
        labels: tf.Tensor,
        predictions: tf.Tensor,
        positions: tf.Tensor | None = None,
    ) -> tf.Tensor:
        weights = position_weights(weights, labels, positions)
        labels, predictions = tf.cast(labels, tf.float64), tf.cast(predictions, tf.float64)
        squared_error = tf.square(predictions - labels)
        return stacked_sums(
            weights * squared_error, weights * tf.square(labels), weights * labels, weights
        )

    def result(self, sums: np.ndarray) -> float:
        error, squares, total, weight = sums
        deviations = squares - total * divided(total, weight)
        if deviations <= squares * 2**-44:  # within the rounding of the sums: the labels are equal
            return math.nan
        return float(1 - error / deviations)
