"""Classification scores of predictions, by class; depends on NumPy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 15  # of the confidence, as in Guo et al. (2017)


class Predictions(NamedTuple):
    """Predictions on a split, in file order.

    Attributes:
      probabilities: float32 [n, classes], each row a distribution.
      labels: int32 [n].
    """

    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The most likely class of each example, the first of equals, int64 [n]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class, float32 [n]."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether the predicted class is the label, bool [n]."""
        return self.predicted == self.labels


class ClassScores(NamedTuple):
    """Scores of each class, float64 [classes].

    Attributes:
      precision: share of the predictions of the class that are right; nan if it is never predicted.
      recall: share of the examples of the class that are predicted as it; nan if there are none.
      f1: harmonic mean of both; 0 if no prediction of the class is right, nan if the class has no
        examples and is never predicted.
      support: number of examples of the class, int64.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


class ConfusedPair(NamedTuple):
    """Two classes that the network confuses.

    Attributes:
      one, other: classes, one < other.
      one_as_other, other_as_one: number of mistakes in each direction.
    """

    one: int
    other: int
    one_as_other: int
    other_as_one: int

    @property
    def times(self) -> int:
        """The number of mistakes in both directions."""
        return self.one_as_other + self.other_as_one


class Calibration(NamedTuple):
    """Confidence and accuracy in confidence bins of equal width.

    Attributes:
      edges: float64 [bins + 1], edges of the bins.
      confidence: float64 [bins], mean of each bin; nan if it is empty.
      accuracy: float64 [bins]; nan for an empty bin.
      counts: int64 [bins], predictions in each bin.
      error: expected calibration error: difference of the two, mean over predictions.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray
    error: float


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns the confusion matrix: counts, int64 [classes (label), classes (predicted)]."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def by_class(counts: np.ndarray) -> ClassScores:
    """Computes the scores of each class from a confusion matrix, int [classes, classes]."""
    right, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return ClassScores(
        _ratio(right, predicted),
        _ratio(right, support),
        _ratio(2 * right, support + predicted),
        support,
    )


def confused_pairs(counts: np.ndarray, limit: int) -> list[ConfusedPair]:
    """Returns the pairs of classes that are confused most often, at most `limit`."""
    either = counts + counts.T
    ones, others = np.triu_indices(len(counts), 1)
    # Stable: pairs of equal counts stay in the order of the classes.
    order = np.argsort(-either[ones, others], kind="stable")[:limit]
    pairs = [
        ConfusedPair(one, other, int(counts[one, other]), int(counts[other, one]))
        for one, other in zip(ones[order].tolist(), others[order].tolist(), strict=True)
    ]
    return [pair for pair in pairs if pair.times]


def most_confident_errors(predictions: Predictions, limit: int) -> np.ndarray:
    """Returns the indices of the most confident mistakes, at most `limit`, int64 [k]."""
    wrong = np.flatnonzero(~predictions.right)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return wrong[order][:limit]


def calibration(predictions: Predictions) -> Calibration:
    """Computes confidence, accuracy and expected calibration error in `BINS` bins.

    Naeini et al., 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; Guo et
    al., 2017, "On Calibration of Modern Neural Networks". A bin excludes its lower edge and
    includes its upper edge.
    """
    edges = np.linspace(0, 1, BINS + 1)
    confidence = predictions.confidence.astype(np.float64)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    mean = _ratio(np.bincount(bins, confidence, BINS), counts)
    accuracy = _ratio(np.bincount(bins, predictions.right, BINS), counts)
    gaps = np.abs(np.nan_to_num(accuracy) - np.nan_to_num(mean))
    error = float((counts * gaps).sum() / max(1, counts.sum()))
    return Calibration(edges, mean, accuracy, counts, error)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole; nan where whole is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
