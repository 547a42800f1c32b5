"""Classification, compared with the formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.tasks.classification import Classification
from pipelines import Batch
from tapeline.models import ForwardContext

ROWS, CLASSES = 6, 4
LOGITS = np.random.default_rng(1).standard_normal((ROWS, CLASSES)).astype(np.float32) * 3
LABELS = np.array([0, 1, 2, 3, 1, 1], np.int32)


def scores(targets: np.ndarray, *, training: bool, smoothing: float = 0.0, dtype=tf.float32):
    number = tf.constant(0, tf.int64)
    batch = Batch(
        tf.zeros([ROWS]),
        tf.constant(targets),
        tf.ones([ROWS]),
        number,
        tf.constant(float(ROWS)),
        number,
        number,
    )
    logits = tf.cast(LOGITS, dtype)
    return Classification(smoothing)(lambda *_: logits, batch, ForwardContext(training=training))


def cross_entropy(targets: np.ndarray) -> np.ndarray:
    logits = LOGITS.astype(np.float64)
    log_sum = np.log(np.exp(logits).sum(1, keepdims=True))
    return -(targets * (logits - log_sum)).sum(1)


ONE_HOT = np.eye(CLASSES)[LABELS]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing(smoothing):
    """Label smoothing applies in training only."""
    smoothed = (1 - smoothing) * ONE_HOT + smoothing / CLASSES
    trained = scores(LABELS, training=True, smoothing=smoothing).losses
    np.testing.assert_allclose(trained, cross_entropy(smoothed), rtol=1e-5)
    evaluated = scores(LABELS, training=False, smoothing=smoothing).losses
    np.testing.assert_allclose(evaluated, cross_entropy(ONE_HOT), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_targets(smoothing):
    mixed = (0.7 * ONE_HOT + 0.3 * np.roll(ONE_HOT, 1, axis=0)).astype(np.float32)
    found = scores(mixed, training=True, smoothing=smoothing)
    smoothed = (1 - smoothing) * mixed + smoothing / CLASSES
    np.testing.assert_allclose(found.losses, cross_entropy(smoothed), rtol=1e-5)
    right = LOGITS.argmax(1) == mixed.argmax(1)
    labels, logits = found.metrics["accuracy"]
    np.testing.assert_array_equal(np.argmax(logits, 1) == labels, right)


def test_labels_equal_one_hot():
    labels = scores(LABELS, training=True)
    distributions = scores(ONE_HOT.astype(np.float32), training=True)
    np.testing.assert_allclose(labels.losses, distributions.losses, rtol=1e-6)
    (found, _), (expected, _) = (each.metrics["accuracy"] for each in (labels, distributions))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_losses_are_float32(dtype):
    found = scores(LABELS, training=True, smoothing=0.1, dtype=dtype)
    assert found.losses.dtype == tf.float32 and found.metrics["accuracy"][1].dtype == tf.float32
