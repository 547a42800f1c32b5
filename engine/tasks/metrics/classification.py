"""Metrics of predicted classes, computed from fractions of positions or from counts per class."""

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
    """Weighted fraction of the positions whose predicted class is the label.

    Labels are class indices, integer [rows, ...]. Predictions are class indices of the same shape,
    or scores of all classes, float [rows, ..., classes]; then the predicted class is the one with
    the largest score.
    """

    percentage = True

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        return tf.equal(predicted_classes(labels, predictions), tf.cast(labels, tf.int64))


class TopK(MeanOf):
    """Weighted fraction of the positions whose label has one of the k largest scores.

    Labels are class indices, integer [rows, ...]; predictions are scores, float
    [rows, ..., classes]. Other scores that equal that of the label are not counted as larger. A
    label whose score is nan is not among the largest.

    Args:
      k: number of scores.
    """

    percentage = True

    def __init__(self, k: int = 5) -> None:
        self.k = k

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        own = tf.gather(
            predictions, tf.cast(labels, tf.int64)[..., tf.newaxis], batch_dims=labels.shape.rank
        )
        larger = tf.reduce_sum(tf.cast(predictions > own, tf.int64), -1)
        return (larger < self.k) & ~tf.math.is_nan(own[..., 0])


class _Confusion(Metric):
    """Base class of metrics computed from the true positives, labels and predictions of each class.

    Positions count by their weights. Labels are either class indices, integer [rows, ...], with
    predictions as for `Accuracy`; or, if `multi_label` is set, 0 or 1 for each class,
    [rows, ..., classes], with scores of the same shape as predictions: a class is predicted if its
    score is above the threshold. The value is nan if no position with a weight above 0 has a label
    (of 1, if labels are 0 or 1).

    Args:
      classes: number of classes; 1: labels are 0 or 1, [rows, ...], and predictions are scores of
        the same shape.
      multi_label: whether a position may have several classes.
      threshold: score above which a class is predicted; used only if labels are 0 or 1.
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
            labels, predicted = tf.cast(labels, tf.int64), predicted_classes(labels, predictions)
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
        """Returns the value of the metric from weights per class, float64 [classes] each.

        Called only if the sum of `labels` is not 0. Every subclass overrides this method.

        Args:
          hits: total weight of the positions that have the class and for which it was predicted
            (true positives).
          labels: total weight of the positions that have the class.
          predictions: total weight of the positions for which the class was predicted.
        """
        raise NotImplementedError


def _macro(scores: Any, present: np.ndarray) -> float:
    """Returns the unweighted mean of the scores of the classes that are present.

    Args:
      scores: score of each class, float64 [classes]; nan counts as 0.
      present: whether the class is present, bool [classes].

    Returns:
      The mean; nan if no class is present.
    """
    return float(np.nan_to_num(scores)[present].mean()) if present.any() else math.nan


class Precision(_Confusion):
    """Fraction of the predictions of a class that are correct, averaged over classes.

    Classes that occur neither in labels nor in predictions are left out of the average; a class
    that is never predicted counts as 0. Positions count by their weights. The value is nan if there
    are no labels (of 1, if labels are 0 or 1).

    Labels are class indices, integer [rows, ...], and predictions are classes of the same shape or
    scores, float [rows, ..., classes], the largest of which is predicted. If `multi_label` is set,
    labels are 0 or 1 for each class, [rows, ..., classes], and predictions are scores of the same
    shape.

    Args:
      classes: number of classes; 1: labels are 0 or 1, [rows, ...], and predictions are scores of
        the same shape.
      multi_label: whether a position may have several classes.
      threshold: score above which a class is predicted; used only if labels are 0 or 1.
    """

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(hits, predictions), labels + predictions > 0)


class Recall(_Confusion):
    """Fraction of the labels of a class that are predicted, averaged over classes.

    Classes that occur neither in labels nor in predictions are left out of the average; a class
    that has no labels, but is predicted, counts as 0. The value is nan if there are no labels.
    Labels, predictions and arguments are those of `Precision`.
    """

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(hits, labels), labels + predictions > 0)


class F1(_Confusion):
    """Harmonic mean of precision and recall of a class, averaged over classes.

    Classes that occur neither in labels nor in predictions are left out of the average. The value
    is nan if there are no labels. Labels, predictions and arguments are those of `Precision`.
    """

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(2 * hits, labels + predictions), labels + predictions > 0)


class MeanIoU(_Confusion):
    """Intersection over union (Jaccard index) of a class, averaged over classes.

    Classes that occur neither in labels nor in predictions are left out of the average. The value
    is nan if there are no labels. Labels, predictions and arguments are those of `Precision`.
    """

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(hits, labels + predictions - hits), labels + predictions > 0)


class BalancedAccuracy(_Confusion):
    """Recall averaged over the classes that have labels; nan if there are no labels.

    Labels, predictions and arguments are those of `Precision`.
    """

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(divided(hits, labels), labels > 0)


class CohenKappa(_Confusion):
    """Cohen's kappa: agreement beyond chance, (observed - expected) / (1 - expected).

    The value is nan if there are no labels, or if all labels and all predictions are of the same
    class. Labels are class indices, integer [rows, ...]. Predictions are classes of the same shape
    or scores, float [rows, ..., classes], the largest of which is predicted.

    Args:
      classes: number of classes, 2 or more.

    Raises:
      ValueError: if `classes` is below 2.
    """

    percentage = False

    def __init__(self, classes: int) -> None:
        if classes < 2:
            raise ValueError(f"CohenKappa(classes={classes}): give 2 or more classes")
        super().__init__(classes)

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        total = labels.sum()
        expected = (labels * predictions).sum() / total**2
        return float(divided(hits.sum() / total - expected, 1 - expected))
