"""Scores of predictions, compared with scikit-learn and with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from engine.reporting import scores
from engine.reporting.scores import Predictions


def predictions(examples: int = 500, classes: int = 7, seed: int = 0) -> Predictions:
    """Returns random predictions; the last class is never true and never predicted."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(examples, classes))
    logits[:, -1] = -9
    labels = random.integers(0, classes - 1, examples).astype(np.int32)
    logits[np.arange(examples), labels] += 1.5
    weights = np.exp(logits)
    return Predictions((weights / weights.sum(1, keepdims=True)).astype(np.float32), labels)


@pytest.mark.parametrize("seed", range(5))
def test_scores_match_sklearn(seed: int):
    of = predictions(seed=seed)
    counts = scores.confusion(of.labels, of.predicted, 7)
    known = list(range(7))
    expected = sklearn.metrics.confusion_matrix(of.labels, of.predicted, labels=known)
    assert (counts == expected).all()
    found = scores.by_class(counts)
    expected = sklearn.metrics.precision_recall_fscore_support(
        of.labels, of.predicted, labels=known, zero_division=np.nan
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_undefined_scores_are_nan():
    counts = np.array([[5, 0, 0], [2, 0, 0], [0, 0, 0]])
    found = scores.by_class(counts)
    np.testing.assert_array_equal(found.recall, [1, 0, np.nan])
    np.testing.assert_array_equal(found.precision, [5 / 7, np.nan, np.nan])
    np.testing.assert_array_equal(found.f1, [10 / 12, 0, np.nan])


def test_confused_pairs():
    counts = np.array([[9, 1, 4], [2, 9, 0], [0, 0, 9]])
    found = scores.confused_pairs(counts, 5)
    assert [(pair.one, pair.other, pair.times) for pair in found] == [(0, 2, 4), (0, 1, 3)]
    assert (found[1].one_as_other, found[1].other_as_one) == (1, 2)
    assert scores.confused_pairs(np.diag([3, 4]), 5) == []


def test_confident_mistakes():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]], np.float32)
    of = Predictions(probabilities, np.array([0, 0, 0, 0], np.int32))
    assert scores.most_confident_errors(of, 2).tolist() == [3, 2]
    assert scores.most_confident_errors(of, 9).tolist() == [3, 2, 1]


def test_calibration_error():
    # Two bins: 3 predictions of confidence 0.9, 2 of them right; 2 of 0.6, both right.
    probabilities = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]] * 2)
    of = Predictions(probabilities, np.array([0, 0, 1, 0, 0], np.int32))
    found = scores.calibration(of)
    assert found.counts.sum() == 5 and (found.counts > 0).sum() == 2
    assert found.error == pytest.approx((3 * abs(2 / 3 - 0.9) + 2 * abs(1 - 0.6)) / 5)
    assert np.isnan(found.accuracy[found.counts == 0]).all()


def test_calibrated_network():
    random = np.random.default_rng(1)
    sure = random.uniform(0.5, 1, 200_000)
    right = random.random(len(sure)) < sure
    labels = np.where(right, 0, 1).astype(np.int32)
    found = scores.calibration(Predictions(np.stack([sure, 1 - sure], 1), labels))
    assert found.error < 0.01


def test_confidence_of_0_and_1():
    of = Predictions(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0], np.int32))
    counts = scores.calibration(of).counts
    assert counts[-1] == 1 and counts.sum() == 2
