"""The check of an export against the run: which differences it finds."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.core.metrics import jsonable
from engine.serving.export import ALLOWED, _max_difference, _random

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("actual", "expected", "allowed"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.1], [1.0, 2.0], False),
        ([2e6, 1.0], [2e6 + 1, 1.0], True),  # relative to the size of the output
        ([NAN, 1.0], [1.0, 1.0], False),
        ([1.0, 1.0], [1.0, NAN], False),
        ([NAN, 1.0], [NAN, 1.0], True),  # the run predicts the same
        ([INF, -INF], [INF, -INF], True),
        ([INF], [-INF], False),
        ([1.0], [INF], False),
        ([INF], [1.0], False),
        ([], [], True),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a", "c"], False),
    ],
)
def test_difference_is_allowed(actual, expected, allowed):
    found = _max_difference({"x": np.array(actual)}, {"x": np.array(expected)})
    assert (found <= ALLOWED) == allowed


def test_any_output_counts():
    sound, broken = np.ones(3, np.float32), np.array([1, NAN, 1], np.float32)
    for names in (("a", "b"), ("b", "a")):
        expected = dict.fromkeys(names, sound)
        assert not _max_difference({"a": sound, "b": broken}, expected) <= ALLOWED


def test_json_of_lists():
    """Numbers that JSON lacks are null in lists, too."""
    assert jsonable({"a": [1.0, NAN, [INF, 2]], "b": "x"}) == {
        "a": [1.0, None, [None, 2]],
        "b": "x",
    }


def test_random_inputs_are_valid_ids():
    """Bytes that are no image may be ids, of a vocabulary of two or more."""
    random = np.random.default_rng(0)
    ids = _random(random, tf.TensorSpec([16], tf.uint8))
    assert ids.dtype == np.uint8 and set(np.unique(ids)) == {0, 1}
    assert _random(random, tf.TensorSpec([4, 4, 1], tf.uint8)).max() > 200
