"""What predictions are worth, class by class. NumPy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 15  # of the confidence, as Guo et al. (2017) take them


class Predictions(NamedTuple):
    """What a network says of a split, in file order.

    probabilities: float32 [n, classes], each row a distribution.
    labels: int32 [n].
    """

    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class of each, the first of several, int64 [n]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of that class, float32 [n]."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether it is the label, bool [n]."""
        return self.predicted == self.labels


class ByClass(NamedTuple):
    """Scores of each class, float64 [classes].

    precision: of those predicted as the class, how many are of it; nan where none is predicted.
    recall: of those of the class, how many are predicted so; nan where there is none.
    f1: their harmonic mean; 0 where nothing of the class is found, nan where there is nothing of
      it and nothing is predicted so.
    support: examples of the class, int64.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


class Pair(NamedTuple):
    """Two classes that are taken for one another.

    one, other: classes, one < other.
    one_as_other, other_as_one: how often.
    """

    one: int
    other: int
    one_as_other: int
    other_as_one: int

    @property
    def times(self) -> int:
        """How often, either way."""
        return self.one_as_other + self.other_as_one


class Calibration(NamedTuple):
    """Confidence and accuracy in bins of equal width of the confidence.

    edges: float64 [bins + 1].
    confidence: float64 [bins], the mean in the bin; nan where it is empty.
    accuracy: float64 [bins], likewise.
    counts: int64 [bins].
    error: the expected calibration error: how far the two lie apart, the mean over predictions.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray
    error: float


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 [classes, classes]: truth by row, prediction by column."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def by_class(counts: np.ndarray) -> ByClass:
    """Scores out of a confusion matrix, int [classes, classes]."""
    right, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return ByClass(
        _ratio(right, predicted),
        _ratio(right, support),
        _ratio(2 * right, support + predicted),
        support,
    )


def confused_pairs(counts: np.ndarray, most: int) -> list[Pair]:
    """The pairs of classes that are mistaken for one another most often, at most so many."""
    either = counts + counts.T
    ones, others = np.triu_indices(len(counts), 1)
    # Sorted by count; of equal counts the first pair is the first.
    order = np.argsort(-either[ones, others], kind="stable")[:most]
    pairs = [
        Pair(one, other, int(counts[one, other]), int(counts[other, one]))
        for one, other in zip(ones[order].tolist(), others[order].tolist(), strict=True)
    ]
    return [pair for pair in pairs if pair.times]


def confident_mistakes(predictions: Predictions, most: int) -> np.ndarray:
    """Which examples are mistaken with the greatest confidence, at most so many, int64 [k]."""
    wrong = np.flatnonzero(~predictions.right)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return wrong[order][:most]


def calibration(predictions: Predictions) -> Calibration:
    """How confidence and accuracy agree.

    Naeini et al., 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; Guo et
    al., 2017, "On Calibration of Modern Neural Networks". A bin holds what is above its lower edge
    and not above its upper one.
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
    """Part / whole, nan where whole is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
