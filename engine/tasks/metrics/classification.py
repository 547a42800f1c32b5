"""Metrics of predicted classes: shares of positions, and counts of each class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from engine.tasks.metrics.base import (
    MeanOf,
    Metric,
    divided,
    position_weights,
    predicted_classes,
    sums_by,
)


class Accuracy(MeanOf):
    """Share of the positions whose predicted class is the label.

    Labels are classes, integer [rows, ...]; predictions classes of the same shape, or scores of all
    classes, float [rows, ..., classes], the largest of which is the prediction.
    """

    percentage = True

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        return tf.equal(predicted_classes(labels, predictions), tf.cast(labels, tf.int32))


class TopK(MeanOf):
    """Share of the rows whose label is among the k largest scores.

    Labels are classes, integer [rows, ...]; predictions scores, float [rows, ..., classes]. A score
    that equals the label's does not count as larger.

    Args:
      k: number of scores.
    """

    percentage = True

    def __init__(self, k: int = 5) -> None:
        self.k = k

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        own = tf.gather(
            predictions, tf.cast(labels, tf.int32)[..., tf.newaxis], batch_dims=labels.shape.rank
        )
        larger = tf.reduce_sum(tf.cast(predictions > own, tf.int32), -1)
        return larger < self.k


class _Confusion(Metric):
    """Base class of metrics of the counts of true positives, labels and predictions of each class.

    Labels are either classes, integer [rows, ...], with predictions as for `Accuracy`; or, if
    `multi_label` is set, 0 or 1 for each class, [rows, ..., classes], with predictions of the same
    shape: a class is predicted where its score is above the threshold.

    Args:
      classes: number of classes; 1: labels are 0 or 1, [rows, ...], and predictions are scores of
        the same shape.
      multi_label: whether several classes may be true at once.
      threshold: score above which a class is predicted; used where there is one score for each
        yes or no.
    """

    percentage = True

    def __init__(
        self, classes: int = 1, *, multi_label: bool = False, threshold: float = 0.5
    ) -> None:
        self._classes, self._threshold = classes, threshold
        self._indicators = multi_label or classes == 1
        self.size = 3 * classes

    def sums(
        self,
        weights: tf.Tensor,
        labels: tf.Tensor,
        predictions: tf.Tensor,
        positions: tf.Tensor | None = None,
    ) -> tf.Tensor:
        if not self._indicators:
            weights = position_weights(weights, labels, positions)
            labels, predicted = tf.cast(labels, tf.int32), predicted_classes(labels, predictions)
            hits = tf.where(tf.equal(labels, predicted), weights, 0.0)
            pairs = ((labels, hits), (labels, weights), (predicted, weights))
            return tf.concat([sums_by(index, term, self._classes) for index, term in pairs], 0)
        if self._classes == 1:
            labels, predictions = labels[..., tf.newaxis], predictions[..., tf.newaxis]
        weights = position_weights(weights, labels[..., 0], positions)
        weights = tf.reshape(weights, [-1, 1])
        true = tf.cast(tf.reshape(labels, [-1, self._classes]), tf.float64)
        predicted = tf.cast(
            tf.reshape(predictions, [-1, self._classes]) > self._threshold, tf.float64
        )
        terms = (true * predicted, true, predicted)
        return tf.concat([tf.reduce_sum(weights * term, 0) for term in terms], 0)

    def result(self, sums: np.ndarray) -> float:
        hits, labels, predictions = sums.reshape(3, -1)
        if not labels.sum():
            return math.nan
        return self.of_counts(hits, labels, predictions)

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        """Returns the value from the weights of each class, float64 [classes].

        Args:
          hits: weight of the positions that have the class and were predicted to.
          labels: weight of those that have it.
          predictions: weight of those that were predicted to have it.
        """
        raise NotImplementedError


def _macro(scores: Any, present: np.ndarray) -> float:
    """Returns the mean over the classes that are present; a score that is nan counts as 0."""
    return float(np.nan_to_num(scores)[present].mean()) if present.any() else math.nan


class Precision(_Confusion):
    """Share of the predictions of a class that are correct, averaged over classes.

    Arguments as those of all metrics of counts, see the base class. Classes that occur neither in
    labels nor in predictions are left out of the mean, here and in the metrics that follow.
    """

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(hits, predictions), labels + predictions > 0)


class Recall(_Confusion):
    """Share of the labels of a class that are predicted, averaged over classes."""

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(hits, labels), labels + predictions > 0)


class F1(_Confusion):
    """Harmonic mean of precision and recall of a class, averaged over classes."""

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(2 * hits, labels + predictions), labels + predictions > 0)


class MeanIoU(_Confusion):
    """Intersection over union of a class, averaged over classes (the Jaccard index)."""

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(hits, labels + predictions - hits), labels + predictions > 0)


class BalancedAccuracy(_Confusion):
    """Recall averaged over the classes that have labels."""

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(hits, labels), labels > 0)


class CohenKappa(_Confusion):
    """Cohen's kappa: agreement beyond chance, (observed - expected) / (1 - expected).

    nan if labels and predictions are all of one class.
    """

    percentage = False

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        total = labels.sum()
        expected = (labels * predictions).sum() / total**2
        return float(divided(hits.sum() / total - expected, 1 - expected))
