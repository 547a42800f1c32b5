"""The built-in tasks, compared with formulas in float64, and built from options."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.registry import Registry
from engine.core import metrics
from engine.core.task_output import checked
from engine.tasks import build, registry
from engine.tasks.classification import Classification
from engine.tasks.language_model import LanguageModel
from engine.tasks.metrics import MeanIoU
from engine.tasks.multi_label import MultiLabel
from engine.tasks.options import TaskOptions
from engine.tasks.regression import LOSSES, Regression
from engine.tasks.segmentation import Segmentation
from engine.tasks.task import Task, TaskOutput
from pipelines import Batch
from tapeline.models import ForwardContext

CLASSES = 3


def batch_of(targets: np.ndarray, mask: np.ndarray | None = None) -> Batch:
    rows = len(targets)
    number = tf.constant(0, tf.int64)
    mask = np.ones(rows) if mask is None else mask
    return Batch(
        tf.zeros([rows]),
        tf.constant(targets),
        tf.constant(mask, tf.float32),
        number,
        tf.constant(float(mask.sum())),
        number,
        number,
    )


def output_of(
    task: Task, targets: np.ndarray, outputs: np.ndarray, *, training: bool = False
) -> TaskOutput:
    context = ForwardContext(training=training)
    batch = batch_of(targets)
    return checked(task, task(lambda *_: tf.constant(outputs), batch, context), batch)


def means(task: Task, output: TaskOutput, rows: int) -> dict[str, float]:
    sums = metrics.masked_sums(output, tf.ones([rows]), task.metrics).numpy()
    return metrics.means(sums.astype(np.float64), task.metrics)


def source_of(targets: Any, class_names: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(
        name="mine", targets=targets, class_names=class_names, classes=len(class_names)
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@given(st.integers(0, 1 << 30), st.sampled_from([(), (2,), (3, 2)]), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_regression(seed, shape, rows):
    random = np.random.default_rng(seed)
    targets = random.standard_normal((rows, *shape)).astype(np.float32)
    outputs = random.standard_normal((rows, *(shape or (1,)))).astype(np.float32)
    errors = outputs.astype(np.float64) - targets.reshape(outputs.shape)
    absolute = np.abs(errors)
    losses = {
        "mean_squared_error": errors**2,
        "mean_absolute_error": absolute,
        "huber": np.where(absolute <= 1, errors**2 / 2, absolute - 0.5),
    }
    for name, expected in losses.items():
        task = Regression(regression_loss=name)
        found = output_of(task, targets, outputs)
        expected = expected.reshape(rows, -1).mean(1)
        np.testing.assert_allclose(found.losses, expected, rtol=1e-5, atol=1e-6)
        assert means(task, found, rows)["mean_absolute_error"] == pytest.approx(
            absolute.mean(), rel=1e-5
        )
    spec = task.output_spec(source_of(tf.TensorSpec(shape, tf.float32)))
    assert spec.shape == outputs.shape[1:]


@given(st.integers(0, 1 << 30), st.integers(1, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_multi_label(seed, labels, rows):
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, (rows, labels)).astype(np.int32)
    logits = random.standard_normal((rows, labels)).astype(np.float32) * 4
    wide = logits.astype(np.float64)
    expected = np.logaddexp(0, wide) - wide * targets
    task = MultiLabel()
    found = output_of(task, targets, logits)
    np.testing.assert_allclose(found.losses, expected.mean(1), rtol=1e-5, atol=1e-6)
    accuracy = ((logits > 0) == targets).mean()
    assert means(task, found, rows)["accuracy"] == pytest.approx(accuracy)
    predicted = task.predict(tf.constant(logits))
    np.testing.assert_allclose(predicted["probabilities"], 1 / (1 + np.exp(-wide)), rtol=1e-5)
    np.testing.assert_array_equal(predicted["predicted"], logits > 0)


@given(
    st.integers(0, 1 << 30),
    st.sampled_from([(4,), (2, 3), (2, 3, 1)]),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_segmentation(seed, shape, weighted, ignored):
    """The loss and the metrics are weighted means over all positions of all rows."""
    random = np.random.default_rng(seed)
    rows, ignore = 4, CLASSES if ignored else None
    targets = random.integers(0, CLASSES + ignored, (rows, *shape)).astype(np.uint8)
    positions = shape[:-1] if shape[-1] == 1 else shape
    logits = random.standard_normal((rows, *positions, CLASSES)).astype(np.float32)
    labels = targets.reshape(rows, *positions).astype(int)
    weights = np.ones(labels.shape)
    if ignored:
        labels, weights = np.where(labels == ignore, 0, labels), (labels != ignore) * 1.0
    of_class = random.random(CLASSES) + 0.1
    if weighted:
        weights = weights * of_class[labels]
    task = Segmentation({"mean_iou": MeanIoU(CLASSES)}, tuple(of_class) if weighted else (), ignore)
    found = output_of(task, targets, logits, training=True)
    values = means(task, found, rows)
    cross_entropy = -np.take_along_axis(log_softmax(logits), labels[..., None], -1)[..., 0]
    if not weights.sum():
        assert np.isnan(values["loss"])
        return
    assert values["loss"] == pytest.approx(
        (cross_entropy * weights).sum() / weights.sum(), rel=1e-5
    )
    predicted = logits.argmax(-1)
    counts = np.zeros((CLASSES, CLASSES))
    np.add.at(counts, (labels, predicted), weights)
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    iou = (np.diag(counts) / np.where(union > 0, union, 1))[union > 0].mean()
    assert values["mean_iou"] == pytest.approx(iou, rel=1e-5)
    np.testing.assert_array_equal(task.predict(tf.constant(logits))["mask"], predicted)


def test_class_weights_and_ignored_labels():
    targets = np.array([0, 1, 2, 9], np.int32)
    logits = np.random.default_rng(0).standard_normal((4, CLASSES)).astype(np.float32)
    task = Classification(class_weights=(1.0, 2.0, 0.5), ignore_label=9)
    losses = -log_softmax(logits)[np.arange(3), targets[:3]]
    for training, weights in ((True, np.array([1, 2, 0.5])), (False, np.ones(3))):
        found = output_of(task, targets, logits, training=training)
        values = means(task, found, 4)
        assert values["loss"] == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-5)
        correct = logits[:3].argmax(1) == targets[:3]
        assert values["accuracy"] == pytest.approx((correct * weights).sum() / weights.sum())


def test_balanced_class_weights():
    """All classes have equal total weight, and the mean weight of the examples is 1."""
    labels = np.array([0, 0, 0, 1, 7], np.int32)
    options = TaskOptions(class_weights="balanced", ignore_label=7)
    source = source_of(tf.TensorSpec([], tf.int32), ("a", "b", "c"))
    weights = build.class_weights(options, source, lambda: labels)
    assert weights == (4 / 9, 4 / 3, 0.0)


def no_labels() -> np.ndarray:
    raise AssertionError("no labels are needed")


@pytest.mark.parametrize(
    ("options", "source", "message"),
    [
        (
            {"task": "regression", "label_smoothing": 0.1},
            source_of(tf.TensorSpec([2])),
            "--label_smoothing=0.1: the task regression",
        ),
        (
            {"class_weights": "1,2"},
            source_of(tf.TensorSpec([], tf.int32), ("a", "b", "c")),
            "2 weights for 3 classes",
        ),
        (
            {"task": "regression", "metrics": "f1"},
            source_of(tf.TensorSpec([2])),
            "--metrics=f1: counts classes",
        ),
        (
            {"task": "multi_label", "metrics": "top_5"},
            source_of(tf.TensorSpec([2])),
            "--metrics=top_5: --task=multi_label has accuracy",
        ),
        (
            {"task": "segmentation", "metrics": "perplexity"},
            source_of(tf.TensorSpec([8, 8, 1], tf.uint8), ("a", "b", "c")),
            "--metrics=perplexity: is for --task=language_model",
        ),
        (
            {"task": "segmentation"},
            source_of(tf.TensorSpec([8, 8, 1], tf.uint8)),
            "--metrics=mean_iou: counts classes",
        ),
    ],
)
def test_refused_options(options, source, message):
    with pytest.raises(ValueError, match=message):
        build.build_task(TaskOptions(**options), source, labels=no_labels)


def test_metric_that_is_none(monkeypatch):
    """A function that makes a metric has to return one."""
    monkeypatch.setitem(registry.METRICS._entries, "mine", lambda: tf.constant(1.0))
    with pytest.raises(ValueError, match=r"--metrics=mine: has to return a tl.metrics.Metric, and"):
        build.build_metric("mine", 3)


def test_own_metric_of_labels(monkeypatch):
    """A registered metric is for multi_label too, whose number of labels it gets."""
    monkeypatch.setitem(registry.METRICS._entries, "mine", MeanIoU)
    options = TaskOptions(task="multi_label", metrics="mine")
    task = build.build_task(options, source_of(tf.TensorSpec([2])), labels=no_labels)
    assert isinstance(task.metrics["mine"], MeanIoU) and task.metrics["mine"].size == 6


@pytest.mark.parametrize("weights", ["balance", "1,-2", "0,0", "1,nan", ","])
def test_refused_class_weights(weights):
    with pytest.raises(ValueError, match="--class_weights="):
        TaskOptions(class_weights=weights)


@pytest.mark.parametrize(
    ("task", "targets", "message"),
    [
        (Classification(), tf.TensorSpec([], tf.float32), "no labels of classes"),
        (MultiLabel(), tf.TensorSpec([], tf.int32), "no vector"),
        (Regression(), {"a": tf.TensorSpec([]), "b": tf.TensorSpec([])}, "no numbers"),
        (Segmentation({}), tf.TensorSpec([4, 4], tf.float32), "no classes"),
        (Segmentation({}), tf.TensorSpec([4, 4], tf.int32), "give --classes"),
        (LanguageModel({}), tf.TensorSpec([4], tf.float32), "no sequences of ids"),
        (LanguageModel({}), tf.TensorSpec([], tf.int32), "no sequences of ids"),
        (LanguageModel({}), tf.TensorSpec([4], tf.int32), "give --classes"),
    ],
)
def test_refused_targets(task, targets, message):
    with pytest.raises(ValueError, match=message):
        task.output_spec(source_of(targets))


def test_own_task(monkeypatch):
    """A registered task gets its arguments by name; `--metrics` with it raises ValueError."""
    tasks = Registry("task", {})
    monkeypatch.setattr(build, "TASKS", tasks)

    @dataclasses.dataclass
    class Mine(Task):
        power: int = 2

    tasks.register("mine")(Mine)
    options = SimpleNamespace(
        task="mine",
        metrics="",
        label_smoothing=0.0,
        regression_loss="",
        classes=0,
        class_weights="",
        ignore_label=-1,
    )
    made = build.build_task(options, source_of(None), labels=no_labels, arguments={"power": 3})
    assert made.power == 3
    options.metrics = "accuracy"
    with pytest.raises(ValueError, match="the task mine has its own metrics"):
        build.build_task(options, source_of(None), labels=no_labels)
    tasks.register("wrong")(lambda: 1)
    options.task, options.metrics = "wrong", ""
    with pytest.raises(ValueError, match="the task wrong is a int: derive it"):
        build.build_task(options, source_of(None), labels=no_labels)


def test_regression_losses():
    assert tuple(LOSSES) == registry.REGRESSION_LOSSES


def test_default_metrics():
    """Each built-in task has default metrics, which `--metrics` replaces."""
    assert set(registry.DEFAULT_METRICS) == set(registry.TASKS.built_in)
    assert TaskOptions().metrics == "accuracy"
    assert TaskOptions(task="regression").metrics == "mean_absolute_error"
    assert TaskOptions(task="regression", metrics="r2").metrics == "r2"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (TaskOutput(tf.zeros([])), r"returns losses of shape \[\]: one number"),
        (TaskOutput(tf.zeros([3])), r"returns losses of shape \[3\]"),
        (TaskOutput(tf.zeros([4, 2])), r"returns losses of shape \[4, 2\]"),
        (TaskOutput(tf.zeros([4]), {}, tf.zeros([1])), r"returns weights of shape \[1\]"),
        (TaskOutput(tf.zeros([4]), {"f1": (tf.zeros([2, 4]),)}), "gives the metric f1 a tensor"),
    ],
)
def test_wrong_output(output, message):
    with pytest.raises(ValueError, match=message):
        checked(Regression(), output, batch_of(np.zeros(4, np.float32)))


@pytest.mark.parametrize("task", ["regression", "multi_label"])
def test_ignored_label_0_is_not_taken(task):
    options = TaskOptions(task=task, ignore_label=0)
    with pytest.raises(ValueError, match=f"--ignore_label=0: the task {task} does not take it"):
        build.build_task(options, source_of(tf.TensorSpec([2])), labels=no_labels)


def test_labels_that_are_no_vector():
    """Several labels need a vector; a scalar is refused by the task and not by its metrics."""
    source = source_of(tf.TensorSpec([], tf.int32))
    task = build.build_task(TaskOptions(task="multi_label"), source, labels=no_labels)
    with pytest.raises(ValueError, match="no vector"):
        task.output_spec(source)
