"""Computes scores, confusion matrix and calibration of predicted classes; needs only NumPy."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

BINS = 15  # number of confidence bins, as in Guo et al. (2017)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predicted class probabilities and labels of n examples of a split, in file order."""

    probabilities: np.ndarray  # float32 [n, classes], each row a probability distribution
    labels: np.ndarray  # int32 [n]

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most likely class of each example, the lowest index on a tie, int64 [n]."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class, float32 [n]."""
        return self.probabilities.max(axis=1)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the predicted class is the label, bool [n]."""
        return self.predicted == self.labels


class ClassScores(NamedTuple):
    """Scores of each class, float64 [classes] (nan where the denominator is 0), and the support."""

    precision: np.ndarray  # fraction of the predictions of the class that are correct
    recall: np.ndarray  # fraction of the examples of the class that are predicted as it
    f1: np.ndarray  # harmonic mean of precision and recall; 0 if no prediction is correct
    support: np.ndarray  # number of examples of the class, int64


class ConfusedPair(NamedTuple):
    """Two class indices, one < other, and how often either class is predicted as the other."""

    one: int
    other: int
    one_as_other: int  # number of examples of class `one` that are predicted as `other`
    other_as_one: int  # number of examples of class `other` that are predicted as `one`

    @property
    def times(self) -> int:
        """The number of examples of either class that are predicted as the other class."""
        return self.one_as_other + self.other_as_one


class Calibration(NamedTuple):
    """Mean confidence and accuracy in confidence bins of equal width; nan for an empty bin."""

    edges: np.ndarray  # edges of the bins, from 0 to 1, float64 [bins + 1]
    confidence: np.ndarray  # mean confidence of each bin, float64 [bins]
    accuracy: np.ndarray  # accuracy in each bin, float64 [bins]
    counts: np.ndarray  # number of predictions in each bin, int64 [bins]
    error: float  # expected calibration error: mean of |accuracy - confidence| over predictions


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns the confusion matrix: counts, int64 [classes (label), classes (predicted)].

    `labels` and `predicted` are class indices from 0 to `classes` - 1, int [n].
    """
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def by_class(counts: np.ndarray) -> ClassScores:
    """Returns precision, recall, F1 and support of each class.

    `counts` is the confusion matrix, int [classes (label), classes (predicted)].
    """
    return of_counts(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))


def by_label(true: np.ndarray, predicted: np.ndarray) -> ClassScores:
    """Returns precision, recall, F1 and support of each label of a multi-label task, [labels].

    The support of a label is the number of examples that have the label.

    Args:
      true: whether each example has each label, bool [n, labels].
      predicted: whether each label is predicted for each example, bool [n, labels].
    """
    hits = (true & predicted).sum(axis=0)
    return of_counts(hits, true.sum(axis=0), predicted.sum(axis=0))


def of_counts(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> ClassScores:
    """Returns precision, recall, F1 and support of each class from counts, int [classes].

    Args:
      hits: number of examples or positions that have the class and are predicted as the class.
      support: number of examples or positions that have the class.
      predicted: number of examples or positions that are predicted as the class.
    """
    precision, recall = _ratio(hits, predicted), _ratio(hits, support)
    return ClassScores(precision, recall, _ratio(2 * hits, support + predicted), support)


def curve_areas(true: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Returns the area under the ROC curve and the average precision of one label.

    The ROC area is the probability that a positive example has a higher score than a negative one,
    ties counting half; the average precision is the mean of the precision at the score of each
    positive. As in scikit-learn, examples with equal scores share one threshold. Both values are
    nan without positives, or if a score is nan; the ROC area is also nan without negatives.

    Args:
      true: whether each example has the label, bool [n].
      scores: scores of the examples, such as probabilities, float [n].
    """
    positives, negatives = int(true.sum()), int((~true).sum())
    if not positives or np.isnan(scores).any():
        return math.nan, math.nan
    order = np.argsort(-scores, kind="stable")
    # Index of the last example of each distinct score.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(true[order])[last]
    selected = last + 1
    gained = np.diff(hits, prepend=0)
    average_precision = float((gained * hits / selected).sum() / positives)
    if not negatives:
        return math.nan, average_precision
    false = selected - hits
    before = hits - gained / 2  # positives with a higher score, and half of those with an equal one
    area = (np.diff(false, prepend=0) * before).sum() / (positives * negatives)
    return float(area), average_precision


def confused_pairs(counts: np.ndarray, limit: int) -> list[ConfusedPair]:
    """Returns the most confused pairs of classes, at most `limit`, in descending order of `times`.

    Pairs that are never confused are omitted. `counts` is the confusion matrix, int [classes
    (label), classes (predicted)].
    """
    either = counts + counts.T
    ones, others = np.triu_indices(len(counts), 1)
    # A stable sort keeps pairs with equal counts in the order of the class indices.
    order = np.argsort(-either[ones, others], kind="stable")[:limit]
    pairs = [
        ConfusedPair(one, other, int(counts[one, other]), int(counts[other, one]))
        for one, other in zip(ones[order].tolist(), others[order].tolist(), strict=True)
    ]
    return [pair for pair in pairs if pair.times]


def most_confident_errors(predictions: Predictions, limit: int) -> np.ndarray:
    """Returns the indices of at most `limit` wrong predictions, most confident first, int64 [k]."""
    errors = np.flatnonzero(~predictions.correct)
    order = np.argsort(-predictions.confidence[errors], kind="stable")
    return errors[order][:limit]


def calibration(predictions: Predictions) -> Calibration:
    """Computes mean confidence and accuracy in `BINS` bins, and the expected calibration error.

    A bin excludes the lower edge (the first bin includes 0) and includes the upper edge. Without
    predictions, the error is 0. References: Naeini et al., 2015, "Obtaining Well Calibrated
    Probabilities Using Bayesian Binning"; Guo et al., 2017, "On Calibration of Modern Neural
    Networks".
    """
    edges = np.linspace(0, 1, BINS + 1)
    confidence = predictions.confidence.astype(np.float64)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    mean = _ratio(np.bincount(bins, confidence, BINS), counts)
    accuracy = _ratio(np.bincount(bins, predictions.correct, BINS), counts)
    gaps = np.abs(np.nan_to_num(accuracy) - np.nan_to_num(mean))
    error = float((counts * gaps).sum() / max(1, counts.sum()))
    return Calibration(edges, mean, accuracy, counts, error)


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Returns part / total elementwise, float64 [n]; nan where the total is 0."""
    return np.divide(part, total, out=np.full(len(total), np.nan), where=total > 0)
