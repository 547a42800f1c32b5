"""Differences and their bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.config import PRECISIONS
from engine.verify import bounds
from engine.verify.differences import Difference, difference, worst


def test_a_difference_is_relative_in_norm():
    assert difference(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
    assert difference(2.0, 3.0) == 0.5


def test_what_is_the_same_is_not_apart_and_nothing_is_far_from_something():
    assert difference(np.zeros(3), np.zeros(3)) == 0
    assert difference(np.zeros(3), np.ones(3)) == math.inf


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_worse_than_anything_and_never_within(wrong):
    found = Difference("wrong", difference(1.0, wrong), 1e9)
    far = Difference("far", 1e6, 1e-6)
    assert not found.within
    assert worst([far, found, Difference("near", 0.0, 0.0)]) is found


def test_the_worst_is_the_furthest_apart_for_what_it_may_be():
    loose, tight = Difference("loose", 1e-2, 1e-1), Difference("tight", 1e-6, 1e-6)
    assert worst([loose, tight]) is tight and tight.within
    assert str(tight) == "tight 1.0e-06 apart, 1e-06 allowed"


def test_bounds_grow_with_the_roundoff_and_the_path():
    for bound in (bounds.bound, bounds.step_bound):
        found = [bound(precision, 1.0, 10.0) for precision in PRECISIONS]
        assert found[0] < found[2] < found[1]
        assert bound("mixed_float16", 2.0, 10.0) == 2 * found[2]
    assert bounds.bound("float32", 1.0, 10.0) == 1e-5
    assert bounds.step_bound("float32", 1.0, 10.0) == 1e-6


def test_a_rule_that_takes_signs_may_turn_one_element_of_any_tensor():
    one_of_four = bounds.flips("float32", 1.0, 1.0, 4)
    assert one_of_four == pytest.approx(2 * np.sqrt(1 / 4))
    assert bounds.flips("float32", 1.0, 1.0, 10**9) < 0.01


def test_on_a_cpu_float32_is_float32():
    assert bounds.arithmetic("float32", gpus=False) == "float32"
    assert bounds.arithmetic("float32", gpus=True) == "tensor_float_32"  # TensorFlow's default
    assert bounds.arithmetic("mixed_float16", gpus=True) == "mixed_float16"
