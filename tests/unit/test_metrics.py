"""Sums and means of metrics: padding has no weight, and each example counts once."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import metrics
from engine.tasks.classification import Scores

SMALL = st.floats(-100, 100, width=32)


def scores(losses, *others):
    return Scores(
        tf.constant(losses, tf.float32), tuple(tf.constant(o, tf.float32) for o in others)
    )


def sums_of(losses, accuracies, mask):
    return metrics.masked_sums(scores(losses, accuracies), tf.constant(mask, tf.float32)).numpy()


def test_layout_of_sums():
    assert metrics.size(()) == 2 and metrics.size(("accuracy", "top5")) == 4
    values = metrics.masked_sums(scores([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]), tf.ones([2]))
    assert values.dtype == tf.float32
    np.testing.assert_array_equal(values, [3.0, 7.0, 11.0, 2.0])


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
    assert found[-1] == len(rows)
    # Rows in another order: float32 rounds each addition by at most 2^-24 of the sum so far.
    np.testing.assert_allclose(found, alone, rtol=0, atol=9 * 2**-24 * 900)


def test_padding_alone_sums_to_zero():
    np.testing.assert_array_equal(sums_of([math.nan] * 3, [math.inf] * 3, [0.0] * 3), [0, 0, 0])


def test_nan_is_not_hidden():
    assert np.isnan(sums_of([math.nan, 1.0], [1.0, 1.0], [1.0, 1.0])[0])


@settings(max_examples=200, derandomize=True)
@given(st.integers(1, 2**40), st.integers(0, 2**40))
def test_accuracy_is_exact(examples, right):
    right = min(right, examples)
    found = metrics.means(np.array([0.0, right, examples], np.float64), ("accuracy",))
    assert found == {"loss": 0.0, "accuracy": right / examples, "examples": examples}
    assert isinstance(found["examples"], int)


def test_means_keep_order():
    found = metrics.means(np.array([8.0, 4.0, 2.0, 4.0]), ("accuracy", "top5"))
    assert list(found.items()) == [
        ("loss", 2.0),
        ("accuracy", 1.0),
        ("top5", 0.5),
        ("examples", 4),
    ]


@pytest.mark.filterwarnings("error")
def test_means_of_no_examples():
    found = metrics.means(np.zeros(3), ("accuracy",))
    assert math.isnan(found["loss"]) and math.isnan(found["accuracy"])
    assert found["examples"] == 0


def test_brief():
    values = {"loss": 0.03124, "accuracy": 0.98966, "top5": 0.5, "examples": 100}
    assert metrics.brief(values) == "loss 0.0312, accuracy 98.97%, top5 0.5000"
    assert metrics.brief({"loss": math.nan}) == "loss nan"


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
