"""Metrics computed from sums over examples.

A metric turns its arguments into a vector of sums of fixed length. The engine adds these vectors
over micro-batches, replicas and batches, and the metric turns the total into a number. So its value
depends neither on the division into batches nor on the number of devices (L2, L7, L8).

Metrics are named and called as those of Keras: with labels, then predictions. Both have a first
axis of rows. Where they have more axes, as masks of images have, each position counts alike. An
optional last argument gives a weight of each position, for example 0 where it is to be ignored.
"""

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


class _WeightedMean(Metric):
    """Base class of ratios of two sums, such as a mean: the sum of the weights is the second."""

    size = 2

    def result(self, sums: np.ndarray) -> float:
        return float(_divided(sums[0], sums[1]))


class Mean(_WeightedMean):
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
        return _mean_sums(weights, values, positions)


class Ratio(_WeightedMean):
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
        weights = _position_weights(weights, values, positions)
        values, divisors = tf.cast(values, tf.float64), tf.cast(divisors, tf.float64)
        return _stacked_sums(weights * values, weights * divisors)


class MeanOfFunction(_WeightedMean):
    """Weighted mean of a function of labels and predictions that returns a value of each row."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def sums(self, weights: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        return _mean_sums(weights, self.function(*arguments), None)


class _MeanOf(_WeightedMean):
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
        return _mean_sums(weights, self.values(labels, predictions), positions)


class Accuracy(_MeanOf):
    """Share of the positions whose predicted class is the label.

    Labels are classes, integer [rows, ...]; predictions classes of the same shape, or scores of all
    classes, float [rows, ..., classes], the largest of which is the prediction.
    """

    percentage = True

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        return tf.equal(_classes(labels, predictions), tf.cast(labels, tf.int32))


class TopK(_MeanOf):
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


class MeanSquaredError(_MeanOf):
    """Mean of (prediction - label)^2 over all positions."""

    better = "lower"

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        return tf.square(tf.cast(predictions, tf.float64) - tf.cast(labels, tf.float64))


class RootMeanSquaredError(MeanSquaredError):
    """Square root of the mean of (prediction - label)^2 over all positions."""

    def result(self, sums: np.ndarray) -> float:
        return math.sqrt(super().result(sums))


class MeanAbsoluteError(_MeanOf):
    """Mean of the absolute value of (prediction - label) over all positions."""

    better = "lower"

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        return tf.abs(tf.cast(predictions, tf.float64) - tf.cast(labels, tf.float64))


class Perplexity(Mean):
    """Exponential of the weighted mean of a value in nats, such as the loss of a language model."""

    def __init__(self) -> None:
        super().__init__(better="lower")

    def result(self, sums: np.ndarray) -> float:
        mean = super().result(sums)
        return math.exp(mean) if mean < 700 else math.inf if mean == mean else mean


class R2(Metric):
    """Coefficient of determination: 1 - squared errors / squared deviations of the labels.

    Both are summed over all positions. nan if all labels are equal.
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
        weights = _position_weights(weights, labels, positions)
        labels, predictions = tf.cast(labels, tf.float64), tf.cast(predictions, tf.float64)
        squared_error = tf.square(predictions - labels)
        return _stacked_sums(
            weights * squared_error, weights * tf.square(labels), weights * labels, weights
        )

    def result(self, sums: np.ndarray) -> float:
        error, squares, total, weight = sums
        deviations = squares - total * _divided(total, weight)
        return float(1 - _divided(error, deviations))


class CalibrationError(Metric):
    """Expected calibration error: the mean gap between confidence and accuracy over bins.

    The confidence, the largest probability, is divided into equal bins; the gap of a bin counts
    with the share of the positions in it (Guo et al. 2017, "On Calibration of Modern Neural
    Networks"). Labels are classes, integer [rows, ...].

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
        weights = _position_weights(weights, labels, positions)
        if self._from_logits:
            predictions = tf.nn.softmax(predictions)
        correct = tf.equal(_classes(labels, predictions), tf.cast(labels, tf.int32))
        confidence = tf.cast(tf.reduce_max(predictions, -1), tf.float64)
        # The upper end belongs to a bin, as in the paper.
        bins = tf.cast(tf.math.ceil(confidence * self._bins), tf.int32) - 1
        bins = tf.clip_by_value(bins, 0, self._bins - 1)
        terms = (weights, weights * confidence, weights * tf.cast(correct, tf.float64))
        return tf.concat([_sums_by(bins, term, self._bins) for term in terms], 0)

    def result(self, sums: np.ndarray) -> float:
        weight, confidence, correct = sums.reshape(3, -1)
        return float(_divided(np.abs(confidence - correct).sum(), weight.sum()))


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
            weights = _position_weights(weights, labels, positions)
            labels, predicted = tf.cast(labels, tf.int32), _classes(labels, predictions)
            hits = tf.where(tf.equal(labels, predicted), weights, 0.0)
            pairs = ((labels, hits), (labels, weights), (predicted, weights))
            return tf.concat([_sums_by(index, term, self._classes) for index, term in pairs], 0)
        if self._classes == 1:
            labels, predictions = labels[..., tf.newaxis], predictions[..., tf.newaxis]
        weights = _position_weights(weights, labels[..., 0], positions)
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
        return _macro(_divided(hits, predictions), labels + predictions > 0)


class Recall(_Confusion):
    """Share of the labels of a class that are predicted, averaged over classes."""

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(_divided(hits, labels), labels + predictions > 0)


class F1(_Confusion):
    """Harmonic mean of precision and recall of a class, averaged over classes."""

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(_divided(2 * hits, labels + predictions), labels + predictions > 0)


class MeanIoU(_Confusion):
    """Intersection over union of a class, averaged over classes (the Jaccard index)."""

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(_divided(hits, labels + predictions - hits), labels + predictions > 0)


class BalancedAccuracy(_Confusion):
    """Recall averaged over the classes that have labels."""

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        return _macro(_divided(hits, labels), labels > 0)


class CohenKappa(_Confusion):
    """Cohen's kappa: agreement beyond chance, (observed - expected) / (1 - expected).

    nan if labels and predictions are all of one class.
    """

    percentage = False

    def of_counts(self, hits: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float:
        total = labels.sum()
        expected = (labels * predictions).sum() / total**2
        return float(_divided(hits.sum() / total - expected, 1 - expected))


class AUC(Metric):
    """Area under the ROC curve or the precision-recall curve, from counts in bins of the score.

    Bins are narrow where probabilities crowd at 0, at 1 and at 0.5. Within a bin, positives and
    negatives are taken to be spread evenly: that gives trapezoids of the ROC curve, and the average
    precision for the precision-recall curve (Davis and Goadrich 2006, "The Relationship Between
    Precision-Recall and ROC Curves").

    Labels are 0 or 1, [rows, ...], with one score each; or, for several classes, integer
    [rows, ...], with scores [rows, ..., classes], or 0 or 1 for each class, [rows, ..., classes]
    (`multi_label`). The value is the mean of the areas of each class against all others; of those
    classes that have both.

    Args:
      curve: "ROC" or "PR".
      classes: number of classes.
      multi_label: whether several classes may be true at once.
      from_logits: whether predictions are logits; otherwise they are probabilities.
    """

    percentage = False

    def __init__(
        self,
        curve: str = "ROC",
        *,
        classes: int = 1,
        multi_label: bool = False,
        from_logits: bool = False,
    ) -> None:
        self._curve, self._classes = curve, classes
        self._multi_label, self._from_logits = multi_label, from_logits
        self._bins = max(512, (1 << 17) // classes)
        self.size = 3 * classes * self._bins

    def sums(
        self,
        weights: tf.Tensor,
        labels: tf.Tensor,
        predictions: tf.Tensor,
        positions: tf.Tensor | None = None,
    ) -> tf.Tensor:
        scores = tf.cast(predictions, tf.float64)
        exclusive = self._classes > 1 and not self._multi_label
        if self._from_logits:
            logits = scores
            if exclusive:
                logs = tf.nn.log_softmax(scores)
                logits = logs - tf.math.log(-tf.math.expm1(tf.minimum(logs, -1e-300)))
        else:
            logits = tf.math.log(scores) - tf.math.log1p(-scores)
        if exclusive:
            labels = tf.one_hot(labels, self._classes, dtype=tf.float64)
        if self._classes == 1:
            labels, logits = labels[..., tf.newaxis], logits[..., tf.newaxis]
        weights = _position_weights(weights, labels[..., 0], positions)[..., tf.newaxis]
        true = tf.cast(labels, tf.float64)
        bins = tf.cast(_bin_position(logits) * self._bins, tf.int32)
        bins = tf.clip_by_value(bins, 0, self._bins - 1) + tf.range(self._classes) * self._bins
        count = self._classes * self._bins
        terms = (weights * true, weights * (1 - true), tf.square(weights) * true)
        return tf.concat([_sums_by(bins, term, count) for term in terms], 0)

    def result(self, sums: np.ndarray) -> float:
        counts = sums.reshape(3, self._classes, self._bins)[:, :, ::-1]
        area = _roc_area if self._curve == "ROC" else _pr_area
        areas = [area(*counts[:, each]) for each in range(self._classes)]
        defined = [each for each in areas if each == each]
        return float(np.mean(defined)) if defined else math.nan


_MAX_LOGIT = 100.0
# Bins are even in a weighted sum of asinh(logit / scale): (scale, weight) of each part. The first
# is fine where probabilities crowd at 0 and 1, the second where they crowd at 0.5.
_BIN_SCALES = ((8.0, 0.7), (1e-4, 0.3))


def _bin_position(logits: tf.Tensor) -> tf.Tensor:
    """Returns the position of each logit among the bins, from 0 to 1; float64."""
    logits = tf.clip_by_value(logits, -_MAX_LOGIT, _MAX_LOGIT)
    parts = [
        tf.asinh(logits / scale) * (weight / math.asinh(_MAX_LOGIT / scale))
        for scale, weight in _BIN_SCALES
    ]
    return (tf.add_n(parts) + 1) / 2


def _roc_area(positives: np.ndarray, negatives: np.ndarray, _: np.ndarray) -> float:
    """Returns the area under the ROC curve from counts by falling score, float64 [bins]."""
    above = np.cumsum(positives) - positives / 2
    return float(_divided((negatives * above).sum(), positives.sum() * negatives.sum()))


def _pr_area(positives: np.ndarray, negatives: np.ndarray, squares: np.ndarray) -> float:
    """Returns the average precision from counts by falling score, float64 [bins]; see `AUC`.

    Args:
      positives: weight of the positives of a bin.
      negatives: weight of the negatives of a bin.
      squares: sum of the squared weights of the positives of a bin.
    """
    filled = positives > 0
    if not filled.any() or not negatives.any():
        return math.nan
    gained, growth = positives[filled], 1 + negatives[filled] / positives[filled]
    # A positive counts in its own precision: on average half of its weight is behind its middle.
    own = squares[filled] / gained / 2
    hits = (np.cumsum(positives) - positives)[filled] + own
    selected = (np.cumsum(positives + negatives) - positives - negatives)[filled] + own
    # The integral over t from 0 to `gained` of (hits + t) / (selected + growth t).
    logs = np.log1p(growth * gained / selected)
    area = (gained + (hits - selected / growth) * logs) / growth
    return float(area.sum() / positives.sum())


def _divided(numerator: Any, denominator: Any) -> np.ndarray:
    """Divides float64 arrays; nan where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    undefined = np.full(numerator.shape, math.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def _classes(labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """Returns the predicted classes, int32 of the shape of the labels; see `Accuracy`."""
    if predictions.shape.rank == labels.shape.rank:
        return tf.cast(predictions, tf.int32)
    return tf.argmax(predictions, -1, output_type=tf.int32)


def _position_weights(
    weights: tf.Tensor, like: tf.Tensor, positions: tf.Tensor | None
) -> tf.Tensor:
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


def _mean_sums(weights: tf.Tensor, values: tf.Tensor, positions: tf.Tensor | None) -> tf.Tensor:
    """Returns the sum of weight * value, and that of the weights, float64 [2]."""
    weights = _position_weights(weights, values, positions)
    return _stacked_sums(weights * tf.cast(values, tf.float64), weights)


def _stacked_sums(*terms: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.reduce_sum(term) for term in terms])


def _sums_by(index: tf.Tensor, terms: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the sum of the terms at each index, float64 [size]; an index outside adds nothing."""
    index, terms = tf.reshape(index, [-1]), tf.reshape(terms, [-1])
    index = tf.where((index >= 0) & (index < size), index, -1)
    return tf.math.unsorted_segment_sum(terms, index, size)
