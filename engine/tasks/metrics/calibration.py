"""Calibration error: the difference between the confidence of predictions and their accuracy."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from engine.tasks.metrics.base import Metric, divided, position_weights, predicted_classes, sums_by


class CalibrationError(Metric):
    """Expected calibration error: mean difference between confidence and accuracy over bins.

    The confidence of a prediction is the largest probability. The interval from 0 to 1 is divided
    into bins of equal width. The absolute difference between the mean confidence and the accuracy
    in a bin is weighted by the fraction of the positions, counted by their weights, that are in the
    bin (Guo et al. 2017, "On Calibration of Modern Neural Networks"). Labels are class indices,
    integer [rows, ...]; predictions are probabilities or logits, float [rows, ..., classes]. The
    error is nan if all weights are 0.

    Args:
      bins: number of bins.
      from_logits: whether predictions are logits; otherwise they are probabilities.
    """

    better = "lower"

    def __init__(self, bins: int = 15, from_logits: bool = False) -> None:
        self._bins, self._from_logits = bins, from_logits
        self.size = 3 * bins

    def sums(
        self,
        weights: tf.Tensor,
        labels: tf.Tensor,
        predictions: tf.Tensor,
        positions: tf.Tensor | None = None,
    ) -> tf.Tensor:
        weights = position_weights(weights, labels, positions)
        if self._from_logits:
            predictions = tf.nn.softmax(predictions)
        correct = tf.equal(predicted_classes(labels, predictions), tf.cast(labels, tf.int64))
        confidence = tf.cast(tf.reduce_max(predictions, -1), tf.float64)
        # The upper end belongs to a bin, as in the paper.
        bins = tf.cast(tf.math.ceil(confidence * self._bins), tf.int64) - 1
        bins = tf.clip_by_value(bins, 0, self._bins - 1)
        terms = (weights, weights * confidence, weights * tf.cast(correct, tf.float64))
        return tf.concat([sums_by(bins, term, self._bins) for term in terms], 0)

    def result(self, sums: np.ndarray) -> float:
        weight, confidence, correct = sums.reshape(3, -1)
        return float(divided(np.abs(confidence - correct).sum(), weight.sum()))
