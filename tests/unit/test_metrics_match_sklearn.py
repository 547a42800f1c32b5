"""Every metric, evaluated by the engine with weights and a partial last batch, equals scikit-learn.

A metric that is added without a reference here fails `test_every_metric_has_a_reference`.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import sklearn.metrics as sk
import tensorflow as tf

from engine.tasks import metrics as tm
from engine.tasks import multi_label
from engine.tasks.build import build_metric
from engine.tasks.registry import METRICS
from engine.tasks.task import Task, TaskOutput
from tests.harness import training

ROWS, BATCH, CLASSES, LABELS = 2000, 130, 8, 3
AREA = 1e-3  # tolerance of areas under curves; that of other metrics is 1e-6
MACRO = {"average": "macro", "zero_division": 0}

rng = np.random.default_rng(0)
WEIGHTS = rng.uniform(0.1, 2, ROWS).astype(np.float32)
LOSSES = rng.uniform(size=ROWS).astype(np.float32)

classes = rng.integers(0, CLASSES - 1, ROWS)  # the last class has no labels, but predictions
logits = rng.normal(size=(ROWS, CLASSES)).astype(np.float32)
logits[np.arange(ROWS), classes] += 1
probabilities = np.exp(logits.astype(float))
probabilities /= probabilities.sum(1, keepdims=True)

several = (rng.uniform(size=(ROWS, LABELS)) < 0.3).astype(np.float32)
several_logits = (rng.normal(size=several.shape) + several).astype(np.float32)

# 1% positives, with scores within 1e-4 of 0 and of 1.
rare = (rng.uniform(size=ROWS) < 0.01).astype(np.int32)
near = rng.beta(1, 3 - 2 * rare) * 1e-4
scores = np.where(rng.uniform(size=ROWS) < 0.3 + 0.5 * rare, 1 - near, near).astype(np.float32)

numbers = (1e4 + rng.normal(size=ROWS)).astype(np.float32)  # a mean of 10,000 deviations
guesses = (numbers + rng.normal(size=ROWS) / 2).astype(np.float32)

masks = rng.integers(0, 4, (ROWS, 3, 3))
found_masks = np.where(rng.uniform(size=masks.shape) < 0.7, masks, 3 - masks)
kept = (masks < 3).astype(np.float32)  # class 3 is ignored


class Case(NamedTuple):
    """A metric, its arguments [ROWS, ...], and its value by scikit-learn or NumPy."""

    metric: tm.Metric
    arguments: Sequence[np.ndarray]
    expected: float
    tolerance: float = 1e-6


def of_classes(score: Callable, **options: Any) -> float:
    """Returns a score of the predicted classes."""
    return score(classes, logits.argmax(1), sample_weight=WEIGHTS, **options)


def top(k: int) -> float:
    known = {"labels": range(CLASSES), "sample_weight": WEIGHTS}
    return sk.top_k_accuracy_score(classes, logits, k=k, **known)


def area(score: Callable) -> float:
    """Returns the mean area of the classes that have labels."""
    present = range(CLASSES - 1)
    return np.mean(
        [score(classes == c, probabilities[:, c], sample_weight=WEIGHTS) for c in present]
    )


def calibration_error() -> float:
    confidence, correct = probabilities.max(1), logits.argmax(1) == classes
    bins = np.ceil(confidence * 15)
    gaps = np.bincount(bins.astype(int), WEIGHTS * (confidence - correct))
    return np.abs(gaps).sum() / WEIGHTS.astype(float).sum()


def of_numbers(score: Callable) -> float:
    return score(numbers.astype(float), guesses.astype(float), sample_weight=WEIGHTS)


def mean(values: np.ndarray) -> float:
    return np.average(values.astype(float), weights=WEIGHTS)


def tolerance(name: str) -> float:
    return AREA if name in ("auc", "pr_auc") else 1e-6


def average_precision(labels, predictions, weights):
    return sk.average_precision_score(labels, predictions, sample_weight=weights)


def registered() -> dict[str, Case]:
    """Returns the metrics that `--metrics` names, by name."""
    of_logits = {
        "accuracy": of_classes(sk.accuracy_score),
        "top_3": top(3),
        "top_5": top(5),
        "balanced_accuracy": of_classes(sk.balanced_accuracy_score),
        "precision": of_classes(sk.precision_score, **MACRO),
        "recall": of_classes(sk.recall_score, **MACRO),
        "f1": of_classes(sk.f1_score, **MACRO),
        "mean_iou": of_classes(sk.jaccard_score, **MACRO),
        "cohen_kappa": of_classes(sk.cohen_kappa_score),
        "auc": area(sk.roc_auc_score),
        "pr_auc": area(sk.average_precision_score),
        "calibration_error": calibration_error(),
    }
    of_guesses = {
        "mean_squared_error": of_numbers(sk.mean_squared_error),
        "root_mean_squared_error": of_numbers(sk.root_mean_squared_error),
        "mean_absolute_error": of_numbers(sk.mean_absolute_error),
        "r2": of_numbers(sk.r2_score),
    }
    arguments = dict.fromkeys(of_logits, (classes, logits))
    arguments |= dict.fromkeys(of_guesses, (numbers, guesses))
    return {
        name: Case(build_metric(name, CLASSES), arguments[name], expected, tolerance(name))
        for name, expected in (of_logits | of_guesses).items()
    }


def of_each_label() -> dict[str, Case]:
    """Returns the metrics that `--metrics` names for `--task=multi_label`, by another name."""
    options: dict[str, Any] = {"average": "macro", "sample_weight": WEIGHTS}
    predicted = several_logits > 0
    expected = {
        "accuracy": mean((predicted == several).mean(1)),
        "precision": sk.precision_score(several, predicted, **options),
        "recall": sk.recall_score(several, predicted, **options),
        "f1": sk.f1_score(several, predicted, **options),
        "auc": sk.roc_auc_score(several, several_logits, **options),
        "pr_auc": sk.average_precision_score(several, several_logits, **options),
    }
    given = several, several_logits
    return {
        f"labels_{name}": Case(multi_label.metric(name, LABELS), given, value, tolerance(name))
        for name, value in expected.items()
    }


def others() -> dict[str, Case]:
    """Returns other metrics of `tl.metrics`, and rare positives and weighted positions."""
    pixels = np.broadcast_to(WEIGHTS[:, None, None], masks.shape)[kept > 0]
    both = masks[kept > 0], found_masks[kept > 0]
    roc = sk.roc_auc_score(rare, scores, sample_weight=WEIGHTS)
    precision = average_precision(rare, scores, WEIGHTS)
    larger = mean(np.maximum(LOSSES, scores))
    iou = sk.jaccard_score(*both, average="macro", sample_weight=pixels)
    return {
        "rare_roc": Case(tm.AUC(), (rare, scores), roc, AREA),
        "rare_pr": Case(tm.AUC("PR"), (rare, scores), precision, AREA),
        "whole_split": Case(tm.collected(average_precision), (rare, scores), precision),
        "positions": Case(tm.MeanIoU(4), (masks, found_masks, kept), iou),
        "mean": Case(tm.Mean(), (scores,), mean(scores)),
        "ratio": Case(tm.Ratio(), (LOSSES, numbers), mean(LOSSES) / mean(numbers)),
        "function": Case(tm.MeanOfFunction(tf.maximum), (LOSSES, scores), larger),
        "function_of_positions": Case(
            tm.MeanOfFunction(lambda label, mask: tf.equal(label, mask)),
            (masks, found_masks, kept),
            np.average(both[0] == both[1], weights=pixels),
        ),
        "function_of_rows": Case(
            tm.MeanOfFunction(
                lambda label, mask: tf.reduce_mean(tf.cast(label, tf.float32), [1, 2])
            ),
            (masks, found_masks, kept),
            mean(masks.mean((1, 2))),
        ),
        "perplexity": Case(tm.Perplexity(), (LOSSES,), math.exp(mean(LOSSES))),
        "bits_per_character": Case(tm.BitsPerToken(), (LOSSES,), mean(LOSSES) / math.log(2)),
    }


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes")
        return {**registered(), **of_each_label(), **others()}


class Saved(Task):
    """A task whose targets are the indices of rows of saved arguments."""

    def __init__(self, chosen: dict[str, Case]) -> None:
        self._arguments = {name: case.arguments for name, case in chosen.items()}
        self.metrics = {name: case.metric for name, case in chosen.items()}

    def __call__(self, model: Any, batch: Any, context: Any) -> TaskOutput:
        def rows(array: np.ndarray) -> tf.Tensor:
            return tf.gather(tf.constant(array), batch.targets)

        given = {name: [*map(rows, arrays)] for name, arrays in self._arguments.items()}
        return TaskOutput(rows(LOSSES), given, rows(WEIGHTS))


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("float64", [False, True], ids=["float32", "float64"])
def test_equals_scikit_learn(cases, replicas, float64):
    """Sums of float32 and of float64 are apart: one metric that needs float64 makes all of them."""
    chosen = {n: case for n, case in cases.items() if case.metric.float64 == float64}
    images, indices = np.zeros([ROWS, 8, 8, 1], np.uint8), np.arange(ROWS, dtype=np.int32)
    run = training(images[:8], indices[:8], replicas=replicas, task=Saved(chosen))
    means = run.evaluate(images, indices, BATCH)
    assert means["examples"] == ROWS
    assert means["loss"] == pytest.approx(mean(LOSSES), abs=1e-6)
    for name, case in chosen.items():
        assert means[name] == pytest.approx(case.expected, abs=case.tolerance, rel=0), name


def test_every_metric_has_a_reference(cases):
    assert set(METRICS.built_in) <= cases.keys()
    public = {name for name in tm.__all__ if inspect.isclass(getattr(tm, name))}
    assert public - {"Metric"} <= {type(case.metric).__name__ for case in cases.values()}
