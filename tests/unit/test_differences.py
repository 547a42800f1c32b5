"""Relative differences of two trajectories, and their bounds."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.options import PRECISIONS
from engine.verify import bounds
from engine.verify.differences import (
    Difference,
    difference,
    tensors,
    whole_model_differences,
    worst,
)
from engine.verify.trajectory import Trajectory


def test_relative_norm():
    assert difference(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
    assert difference(2.0, 3.0) == 0.5
    assert difference(2.0, 3.0, 10.0) == 0.1 and difference(2.0, 3.0, 1.0) == 0.5


def test_zero_and_infinite_difference():
    assert difference(np.zeros(3), np.zeros(3)) == 0
    assert difference(np.zeros(3), np.ones(3)) == math.inf


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_nonfinite_is_worst(wrong):
    found = Difference("wrong", difference(1.0, wrong), 1e9)
    far = Difference("far", 1e6, 1e-6)
    assert not found.within
    assert worst([far, found, Difference("near", 0.0, 0.0)]) is found


def test_worst_relative_to_bound():
    loose, tight = Difference("loose", 1e-2, 1e-1), Difference("tight", 1e-6, 1e-6)
    assert worst([loose, tight]) is tight and tight.within
    assert str(tight) == "tight 1.0e-06 apart, 1e-06 allowed"


MODEL = tf.Module()
PARTS: Any = SimpleNamespace(
    state=SimpleNamespace(model=MODEL),
    task=SimpleNamespace(metrics={}),
    config=SimpleNamespace(optimizer=SimpleNamespace(optimizer="adam")),
)


def moved(bias: np.ndarray, loss: float = 1.0) -> Trajectory:
    """Returns a trajectory of 1 step whose bias moved a distance of 1 in all, and is now `bias`."""
    sums = np.array([loss, 1.0, 1.0, 1.0, 1.0])
    return Trajectory(PARTS, {"bias": 1.0}, {"bias": bias}, {}, sums, 1, [])


NEAR_ZERO = np.array([1e-9, -2e-9])


@pytest.mark.parametrize("compare", [tensors, whole_model_differences])
def test_cancelling_updates(compare):
    """Differences are relative to the length of the path of updates, not to the weights' values."""
    for one in (NEAR_ZERO, np.zeros(2)):
        assert worst(compare(moved(one), moved(one + 1e-7), "float32", {})).within
        far = worst(compare(moved(one), moved(one + 1e-4), "float32", {}))
        assert far.name in ("bias", "weights") and not far.within


def test_statistic_near_zero(monkeypatch):
    """A moving mean that is 0 but for rounding errors is compared at the scale of the others."""
    names = "a/mean", "b/mean"
    for name in names:
        part = tf.Module()
        part.mean = tf.Variable(0.0, trainable=False)
        monkeypatch.setattr(MODEL, name[0], part, raising=False)

    def found(cancelling: float) -> Difference:
        weights = dict(zip(names, map(np.array, (cancelling, 1.0)), strict=True))
        weights = {f"model/{name}": value for name, value in weights.items()}
        one = dataclasses.replace(moved(NEAR_ZERO), weights=weights, path=dict.fromkeys(weights, 0))
        weights = weights | {"model/a/mean": np.array(0.0)}
        return worst(tensors(one, dataclasses.replace(one, weights=weights), "float32", {}))

    assert found(1e-9).within
    assert not found(1e-4).within and found(1e-4).name == "model/a/mean"


@pytest.mark.parametrize("compare", [tensors, whole_model_differences])
def test_loss_near_zero(compare):
    """The difference of two losses near 0 is relative to a typical loss, not to these losses."""
    one, other = moved(NEAR_ZERO, 3e-6), moved(NEAR_ZERO, 3.1e-6)
    sizes = {"loss": 2.3, "gradient norm": 1.0}
    assert worst(compare(one, other, "float32", sizes)).within
    assert not worst(compare(one, other, "float32", {})).within
    far = worst(compare(one, moved(NEAR_ZERO, 1e-3), "float32", sizes))
    assert far.name == "loss" and not far.within


def test_usual_sizes():
    not_updated = dataclasses.replace(moved(NEAR_ZERO), sums=np.zeros(5))
    assert not_updated.typical_sizes == {}
    taken = dataclasses.replace(not_updated, sums=np.array([-46.0, 20.0, 20.0, 6.0, 2.0]))
    found = taken.typical_sizes
    assert (found["loss"], found["gradient norm"]) == (2.3, 3.0)


def test_bounds_scale():
    """Bounds are proportional to the unit roundoff and to the length of the path."""
    for bound in (bounds.bound, bounds.step_bound):
        found = [bound(precision, 1.0, 10.0) for precision in PRECISIONS]
        assert found[0] < found[2] < found[1]
        assert bound("mixed_float16", 2.0, 10.0) == 2 * found[2]
    assert bounds.bound("float32", 1.0, 10.0) == 1e-5
    assert bounds.step_bound("float32", 1.0, 10.0) == 1e-6


def test_sign_flip_bound():
    """The bound for an optimizer that uses signs allows one flipped element of a tensor."""
    one_of_four = bounds.sign_flip_bound("float32", 1.0, 1.0, 4)
    assert one_of_four == pytest.approx(2 * np.sqrt(1 / 4))
    assert bounds.sign_flip_bound("float32", 1.0, 1.0, 10**9) < 0.01


def test_arithmetic_of_float32():
    assert bounds.arithmetic("float32", gpus=False) == "float32"
    assert bounds.arithmetic("float32", gpus=True) == "tensor_float_32"  # TensorFlow's default
    assert bounds.arithmetic("mixed_float16", gpus=True) == "mixed_float16"
