"""The task language_model, compared with formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from engine.tasks import build
from engine.tasks.options import TaskOptions
from tests.unit.test_tasks import means, no_labels, output_of, source_of

ROWS, TOKENS, VOCABULARY = 3, 5, 7
RANDOM = np.random.default_rng(0)
TARGETS = RANDOM.integers(VOCABULARY, size=(ROWS, TOKENS)).astype(np.uint8)
LOGITS = RANDOM.normal(size=(ROWS, TOKENS, VOCABULARY)).astype(np.float32)


def losses_of(logits, targets):
    """Returns the cross-entropy of each position, float64 [rows, tokens]."""
    wide = logits.astype(np.float64)
    total = np.log(np.exp(wide).sum(-1))
    return total - np.take_along_axis(wide, targets[..., None].astype(int), -1)[..., 0]


def task_of(**options):
    source = source_of(tf.TensorSpec([TOKENS], tf.uint8), tuple("abcdefg"))
    given = TaskOptions(task="language_model", **options)
    return build.build_task(given, source, labels=no_labels), source


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_losses_and_metrics(dtype):
    task, source = task_of(metrics="perplexity,bits_per_character,accuracy")
    assert task.output_spec(source).shape == [TOKENS, VOCABULARY]
    logits = LOGITS.astype(dtype)
    output = output_of(task, TARGETS, logits)
    expected = losses_of(logits, TARGETS)
    np.testing.assert_allclose(output.losses, expected.mean(-1), rtol=1e-5)
    found = means(task, output, ROWS)
    assert found["perplexity"] == pytest.approx(math.exp(expected.mean()), rel=1e-5)
    assert found["bits_per_character"] == pytest.approx(expected.mean() / math.log(2), rel=1e-5)
    assert found["accuracy"] == pytest.approx((logits.argmax(-1) == TARGETS).mean())


def test_default_metrics():
    task, _ = task_of()
    assert list(task.metrics) == ["perplexity", "bits_per_character"]
    assert all(metric.better == "lower" for metric in task.metrics.values())


def test_label_smoothing():
    """It is part of the training loss alone."""
    task, _ = task_of(label_smoothing=0.1)
    wide = LOGITS.astype(np.float64)
    even = np.log(np.exp(wide).sum(-1)) - wide.mean(-1)
    plain = losses_of(LOGITS, TARGETS)
    trained = output_of(task, TARGETS, LOGITS, training=True)
    np.testing.assert_allclose(trained.losses, (0.9 * plain + 0.1 * even).mean(-1), rtol=1e-5)
    np.testing.assert_allclose(output_of(task, TARGETS, LOGITS).losses, plain.mean(-1), rtol=1e-5)
    assert means(task, trained, ROWS)["perplexity"] == pytest.approx(math.exp(plain.mean()))


def test_vocabulary_by_option():
    task, source = task_of(classes=11)
    assert task.output_spec(source).shape == [TOKENS, 11]


def test_prediction():
    task, _ = task_of()
    assert list(task.predict(tf.constant(LOGITS))) == ["logits"]
