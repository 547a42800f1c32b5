"""Tests that metrics match scikit-learn's, with weights, for any division into batches."""

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tasks import metrics as tm

ROWS, CLASSES = 400, 5


def value(metric, *arguments, weights, batch=130):
    """Returns a metric's value from sums over batches of `batch` rows; the last is partial."""
    total = np.zeros(metric.size)
    for start in range(0, len(weights), batch):
        part = slice(start, start + batch)
        sums = metric.sums(
            tf.constant(weights[part], tf.float64),
            *(tf.constant(each[part]) for each in arguments),
        )
        assert sums.dtype == tf.float64 and sums.shape == [metric.size]
        total += sums.numpy()
    return metric.result(total)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def exclusive():
    """Returns labels [ROWS], logits [ROWS, CLASSES] and weights of exclusive classes."""
    rng = generator()
    labels = rng.integers(0, CLASSES - 1, ROWS)  # one class has no labels, but predictions
    logits = rng.normal(size=(ROWS, CLASSES)).astype(np.float32)
    logits[np.arange(ROWS), labels] += 1
    return labels, logits, rng.uniform(0.1, 2, ROWS)


MACRO = {"average": "macro", "zero_division": 0}


@pytest.mark.parametrize(
    ("metric", "reference", "options"),
    [
        (tm.Precision, sk.precision_score, MACRO),
        (tm.Recall, sk.recall_score, MACRO),
        (tm.F1, sk.f1_score, MACRO),
        (tm.MeanIoU, sk.jaccard_score, MACRO),
        (tm.CohenKappa, sk.cohen_kappa_score, {}),
    ],
)
def test_metrics_of_counts(metric, reference, options, exclusive):
    labels, logits, weights = exclusive
    predicted = logits.argmax(1)
    expected = reference(labels, predicted, sample_weight=weights, **options)
    for predictions in (logits, predicted):
        found = value(metric(CLASSES), labels, predictions, weights=weights)
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_accuracies(exclusive):
    labels, logits, weights = exclusive
    predicted = logits.argmax(1)
    for metric, expected in (
        (tm.Accuracy(), sk.accuracy_score(labels, predicted, sample_weight=weights)),
        (
            tm.TopK(3),
            sk.top_k_accuracy_score(
                labels, logits, k=3, labels=range(CLASSES), sample_weight=weights
            ),
        ),
        (
            tm.BalancedAccuracy(CLASSES),
            sk.balanced_accuracy_score(labels, predicted, sample_weight=weights),
        ),
    ):
        assert value(metric, labels, logits, weights=weights) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (tm.Precision, sk.precision_score),
        (tm.Recall, sk.recall_score),
        (tm.F1, sk.f1_score),
        (tm.MeanIoU, sk.jaccard_score),
    ],
)
def test_scores_of_yes_and_no(metric, reference):
    rng = generator()
    labels = (rng.uniform(size=(ROWS, CLASSES)) < 0.3).astype(np.int32)
    scores = rng.uniform(size=labels.shape)
    weights = rng.uniform(0.1, 2, ROWS)
    found = value(metric(CLASSES, multi_label=True), labels, scores, weights=weights)
    expected = reference(labels, scores > 0.5, average="macro", sample_weight=weights)
    assert found == pytest.approx(expected, abs=1e-9)
    found = value(metric(threshold=0.7), labels[:, 0], scores[:, 0], weights=weights)
    expected = reference(labels[:, 0], scores[:, 0] > 0.7, sample_weight=weights)
    assert found == pytest.approx(expected, abs=1e-9)


def test_errors_of_regression():
    rng = generator()
    labels = (rng.normal(size=ROWS) + 1e4).astype(np.float32)  # a mean of 10,000 deviations
    predictions = (labels + rng.normal(size=ROWS) / 2).astype(np.float32)
    weights = rng.uniform(0.1, 2, ROWS)
    exact = labels.astype(float), predictions.astype(float)
    for metric, reference in (
        (tm.R2(), sk.r2_score),
        (tm.MeanSquaredError(), sk.mean_squared_error),
        (tm.RootMeanSquaredError(), sk.root_mean_squared_error),
        (tm.MeanAbsoluteError(), sk.mean_absolute_error),
    ):
        found = value(metric, labels, predictions, weights=weights)
        assert found == pytest.approx(reference(*exact, sample_weight=weights), abs=1e-6)


@pytest.mark.parametrize("rows", [2000, 20_000])
@pytest.mark.parametrize("crowded", ["at 0", "at both ends", "in the middle", "nowhere"])
def test_areas_with_one_percent_of_positives(rows, crowded):
    rng = generator()
    labels = (rng.uniform(size=rows) < 0.01).astype(np.int32)
    tiny = rng.beta(1, 3 - 2 * labels) * 1e-4
    scores = {
        "at 0": tiny,
        "at both ends": np.where(rng.uniform(size=rows) < 0.3 + 0.5 * labels, 1 - tiny, tiny),
        "in the middle": 0.5 + 100 * tiny,
        "nowhere": 1 / (1 + np.exp(-rng.normal(size=rows) - labels)),
    }[crowded].astype(np.float32)
    weights = rng.uniform(0.1, 2, rows)
    for curve, reference in (("ROC", sk.roc_auc_score), ("PR", sk.average_precision_score)):
        found = value(tm.AUC(curve), labels, scores, weights=weights, batch=1300)
        assert found == pytest.approx(reference(labels, scores, sample_weight=weights), abs=1e-3)


def test_areas_of_several_classes(exclusive):
    labels, logits, weights = exclusive
    probabilities = tf.nn.softmax(logits).numpy()
    for curve, reference in (("ROC", sk.roc_auc_score), ("PR", sk.average_precision_score)):
        expected = np.mean(
            [
                reference(labels == each, probabilities[:, each], sample_weight=weights)
                for each in range(CLASSES - 1)  # the last class has no labels, so no area
            ]
        )
        for scores, from_logits in ((logits, True), (probabilities, False)):
            metric = tm.AUC(curve, classes=CLASSES, from_logits=from_logits)
            found = value(metric, labels, scores, weights=weights)
            assert found == pytest.approx(expected, abs=1e-3)


def test_calibration_error(exclusive):
    labels, logits, weights = exclusive
    probabilities = tf.nn.softmax(logits).numpy().astype(float)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for low in np.arange(10) / 10:
        part = (confidence > low) & (confidence <= low + 0.1)
        gap = (weights * (confidence - correct))[part].sum()
        expected += abs(gap) / weights.sum()
    found = value(tm.CalibrationError(10, from_logits=True), labels, logits, weights=weights)
    assert found == pytest.approx(expected, abs=1e-6)


def test_means():
    rng = generator()
    values, divisors = rng.uniform(size=(2, ROWS))
    weights = rng.uniform(0.1, 2, ROWS)
    mean = np.average(values, weights=weights)
    assert value(tm.Mean(), values, weights=weights) == pytest.approx(mean)
    assert value(tm.Perplexity(), values, weights=weights) == pytest.approx(math.exp(mean))
    ratio = (weights * values).sum() / (weights * divisors).sum()
    assert value(tm.Ratio(), values, divisors, weights=weights) == pytest.approx(ratio)


def test_positions_with_weights():
    """Positions of weight 0 do not count, whatever their label."""
    rng = generator()
    labels = rng.integers(0, 3, (ROWS, 4, 4))
    predictions = rng.integers(0, 3, (ROWS, 4, 4))
    kept = rng.uniform(size=labels.shape) < 0.8
    ignored = np.where(kept, labels, 255)
    rows = np.ones(ROWS)
    for metric, reference in (
        (tm.MeanIoU(3), lambda *both: sk.jaccard_score(*both, average="macro")),
        (tm.Accuracy(), sk.accuracy_score),
    ):
        found = value(metric, ignored, predictions, kept.astype(np.float32), weights=rows)
        assert found == pytest.approx(reference(labels[kept], predictions[kept]), abs=1e-9)


@pytest.mark.parametrize(
    "metric",
    [
        tm.Accuracy(),
        tm.F1(2),
        tm.MeanIoU(2),
        tm.BalancedAccuracy(2),
        tm.CohenKappa(2),
        tm.R2(),
        tm.RootMeanSquaredError(),
        tm.CalibrationError(),
        tm.AUC(),
        tm.AUC("PR"),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_no_examples_give_nan(metric):
    assert math.isnan(metric.result(np.zeros(metric.size)))


@settings(max_examples=20, derandomize=True)
@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 2000))
def test_r2_of_equal_labels_is_nan(label, count):
    """Deviations of equal labels are rounding errors of their sums, and divide nothing."""
    metric, sums = tm.R2(), np.zeros(4)
    for rows in (32,) * (count // 32) + (count % 32,):
        labels = tf.fill([rows], np.float32(label))
        sums += metric.sums(tf.ones([rows], tf.float64), labels, labels + 1).numpy()
    assert math.isnan(metric.result(sums))


def test_kappa_needs_classes():
    """Kappa is of one class per example: 0 or 1 are two classes."""
    with pytest.raises(ValueError, match=r"CohenKappa\(classes=1\): give 2 or more"):
        tm.CohenKappa(1)


def test_top_k_of_nan():
    """A label whose score is nan is not among the largest, as in `tf.math.in_top_k`."""
    scores = tf.constant([[0.1, np.nan, 0.3], [np.nan] * 3, [0.1, 0.2, np.nan], [1.0, np.inf, 0.0]])
    found = tm.TopK(1).values(tf.constant([1, 0, 1, 1]), scores)
    assert found.numpy().tolist() == [False, False, True, True]
