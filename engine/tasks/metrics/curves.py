"""Areas under the ROC curve and the precision-recall curve."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from engine.tasks.metrics.base import Metric, divided, position_weights, sums_by


class AUC(Metric):
    """Area under the ROC curve or the precision-recall curve, from weighted counts in score bins.

    A class has max(512, 2^17 // classes) bins, which are narrowest at probabilities near 0, 1/2 and
    1. Positives and negatives are assumed to be evenly distributed within a bin: this gives the
    trapezoidal rule for the ROC curve, and the average precision for the precision-recall curve
    (Davis and Goadrich 2006, "The Relationship Between Precision-Recall and ROC Curves").

    For 1 class, labels are 0 or 1, [rows, ...], and predictions are scores of the same shape. For
    several classes, labels are class indices, integer [rows, ...], or, if `multi_label` is set, 0
    or 1 for each class, [rows, ..., classes]; predictions are scores, [rows, ..., classes]. The
    value is the mean of the one-versus-rest areas of the classes that have both positives and
    negatives; nan if there is no such class.

    Args:
      curve: "ROC" or "PR".
      classes: number of classes.
      multi_label: whether a position may have several classes.
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
        weights = position_weights(weights, labels[..., 0], positions)[..., tf.newaxis]
        true = tf.cast(labels, tf.float64)
        bins = tf.cast(_bin_position(logits) * self._bins, tf.int64)
        first = tf.range(self._classes, dtype=tf.int64) * self._bins
        bins = tf.clip_by_value(bins, 0, self._bins - 1) + first
        count = self._classes * self._bins
        terms = (weights * true, weights * (1 - true), tf.square(weights) * true)
        return tf.concat([sums_by(bins, term, count) for term in terms], 0)

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
    """Returns the position of each logit in the range of all bins, float64 from 0 to 1."""
    logits = tf.clip_by_value(logits, -_MAX_LOGIT, _MAX_LOGIT)
    parts = [
        tf.asinh(logits / scale) * (weight / math.asinh(_MAX_LOGIT / scale))
        for scale, weight in _BIN_SCALES
    ]
    return (tf.add_n(parts) + 1) / 2


def _roc_area(positives: np.ndarray, negatives: np.ndarray, _: np.ndarray) -> float:
    """Returns the area under the ROC curve; nan without positives or without negatives.

    Args:
      positives: weight of the positives of each bin, highest scores first, float64 [bins].
      negatives: weight of the negatives of each bin, in the same order.
      _: not used; see `_pr_area`.
    """
    above = np.cumsum(positives) - positives / 2
    return float(divided((negatives * above).sum(), positives.sum() * negatives.sum()))


def _pr_area(positives: np.ndarray, negatives: np.ndarray, squares: np.ndarray) -> float:
    """Returns the average precision; nan without positives or without negatives.

    Args:
      positives: weight of the positives of each bin, highest scores first, float64 [bins].
      negatives: weight of the negatives of each bin, in the same order.
      squares: sum of the squared weights of the positives of each bin, in the same order.
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
