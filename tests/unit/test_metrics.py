"""Sums and means of metrics: padding has no weight, and each example counts once."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import metrics
from engine.tasks.metrics import R2, Accuracy, Mean, MeanIoU, MeanSquaredError
from engine.tasks.task import TaskOutput

SMALL = st.floats(-100, 100, width=32)


ONE = {"accuracy": Mean()}
TWO = {"accuracy": Mean(), "top5": Mean()}


def sums_of(losses, accuracies, mask, weights=None):
    losses, accuracies, mask = (tf.constant(v, tf.float32) for v in (losses, accuracies, mask))
    output = TaskOutput(losses, {"accuracy": (accuracies,)}, weights)
    return metrics.masked_sums(output, mask, ONE).numpy()


def test_layout_of_sums():
    assert metrics.size({}) == 3 and metrics.size(TWO) == 7
    output = TaskOutput(
        tf.constant([1.0, 2.0]),
        {"accuracy": (tf.constant([3.0, 4.0]),), "top5": (tf.constant([5.0, 6.0]),)},
    )
    values = metrics.masked_sums(output, tf.ones([2]), TWO)
    assert values.dtype == tf.float32
    np.testing.assert_array_equal(values, [3.0, 2.0, 2.0, 7.0, 2.0, 11.0, 2.0])
    assert metrics.masked_sums(output._replace(metrics={}), tf.ones([2]), {}).shape == [3]


def test_weights():
    """Weights apply to the sums of the loss and of metrics, but not to the number of examples."""
    weights = tf.constant([2.0, 0.5, math.nan])
    found = sums_of([1.0, 4.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 0.0], weights)
    np.testing.assert_array_equal(found, [4.0, 2.5, 2.0, 7.0, 2.5])
    means = metrics.means(found.astype(np.float64), ONE)
    assert means == {"loss": 1.6, "accuracy": 2.8, "examples": 2}


def test_large_sums_keep_their_digits():
    """The sums are float64 if a metric, such as R2, requires it."""
    labels = tf.constant(1e4 + np.arange(8), tf.float32)
    output = TaskOutput(tf.zeros([8]), {"r2": (labels, labels + 0.5)})
    sums = metrics.masked_sums(output, tf.ones([8]), {"r2": R2()})
    assert sums.dtype == tf.float64
    assert metrics.means(sums.numpy(), {"r2": R2()})["r2"] == pytest.approx(1 - 2 / 42, abs=1e-9)


def test_names_of_metrics_must_agree():
    with pytest.raises(ValueError, match="has the metrics accuracy, and returns arguments of none"):
        metrics.masked_sums(TaskOutput(tf.zeros([2])), tf.ones([2]), ONE)


@settings(max_examples=100, derandomize=True)
@given(
    st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=9),
    st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 1e38, 0.0]), max_size=9),
    st.randoms(use_true_random=False),
)
def test_padding_adds_nothing(rows, garbage, random):
    padded = [(loss, accuracy, 1.0) for loss, accuracy in rows] + [(g, g, 0.0) for g in garbage]
    alone = sums_of(*zip(*rows, strict=True), np.ones(len(rows)))
    random.shuffle(padded)
    losses, accuracies, mask = zip(*padded, strict=True)
    found = sums_of(losses, accuracies, mask)
    assert found[2] == len(rows)
    # Rows in another order: float32 rounds each addition by at most 2^-24 of the sum so far.
    np.testing.assert_allclose(found, alone, rtol=0, atol=9 * 2**-24 * 900)


def test_padding_alone_sums_to_zero():
    np.testing.assert_array_equal(sums_of([math.nan] * 3, [math.inf] * 3, [0.0] * 3), [0] * 5)


def test_nan_is_not_hidden():
    assert np.isnan(sums_of([math.nan, 1.0], [1.0, 1.0], [1.0, 1.0])[0])


@settings(max_examples=200, derandomize=True)
@given(st.integers(1, 2**40), st.integers(0, 2**40))
def test_accuracy_is_exact(examples, right):
    right = min(right, examples)
    found = metrics.means(np.array([0.0, examples, examples, right, examples], np.float64), ONE)
    assert found == {"loss": 0.0, "accuracy": right / examples, "examples": examples}
    assert isinstance(found["examples"], int)


def test_means_keep_order():
    found = metrics.means(np.array([8.0, 4.0, 4.0, 4.0, 4.0, 2.0, 4.0]), TWO)
    assert list(found.items()) == [
        ("loss", 2.0),
        ("accuracy", 1.0),
        ("top5", 0.5),
        ("examples", 4),
    ]


@pytest.mark.filterwarnings("error")
def test_means_of_no_examples():
    found = metrics.means(np.zeros(5), ONE)
    assert math.isnan(found["loss"]) and math.isnan(found["accuracy"])
    assert found["examples"] == 0


def test_brief():
    values = {"loss": 0.03124, "accuracy": 0.98966, "top5": 0.5, "examples": 100}
    shown = {"accuracy": Accuracy(), "top5": MeanSquaredError()}
    assert metrics.brief(values, shown) == "loss 0.0312, accuracy 98.97%, top5 0.5000"
    assert metrics.brief({"loss": math.nan}, {}) == "loss nan"


def test_percentages_of_unregistered_metrics():
    """The class of a metric determines whether it is a percentage, not its name in the task."""
    of = {"iou": MeanIoU(3), "loss_like": MeanSquaredError()}
    assert metrics.brief({"iou": 0.5, "loss_like": 0.5}, of) == "iou 50.00%, loss_like 0.5000"
    assert metrics.brief({"accuracy": 0.5}, {"accuracy": MeanSquaredError()}) == "accuracy 0.5000"


def test_jsonable():
    values = {
        "a": math.nan,
        "b": {"c": math.inf, "d": 1.5, "e": {"f": -math.inf}},
        "g": 3,
        "h": "nan",
        "i": None,
        "j": True,
        "k": np.float64("nan"),
    }
    wanted = {
        "a": None,
        "b": {"c": None, "d": 1.5, "e": {"f": None}},
        "g": 3,
        "h": "nan",
        "i": None,
        "j": True,
        "k": None,
    }
    assert metrics.jsonable(values) == wanted
    assert json.loads(json.dumps(metrics.jsonable(values), allow_nan=False)) == wanted
