"""Comparison of the rounding errors of several replicas with those of one device."""

from __future__ import annotations

import numpy as np
import pytest

from engine.verify.rounding_errors import FACTOR, LARGEST, compare, errors

NAMES = [f"layers/{number}/kernel" for number in range(40)]
PATH = dict.fromkeys(NAMES, 2.0)
REFERENCE = {name: np.full(16, 3.0) for name in NAMES}


def rounded(seed: int, error: float) -> dict[str, np.ndarray]:
    """Returns `REFERENCE` with independent normal errors, whose norm is about error * path."""
    random = np.random.default_rng(seed)
    return {
        name: value + error * PATH[name] * random.normal(size=16) / 4
        for name, value in REFERENCE.items()
    }


def exceeded(one: dict, several: dict, precision: str = "mixed_float16") -> list[str]:
    found = (errors(REFERENCE, values, PATH) for values in (one, several))
    return [each.name for each in compare(*found, [NAMES], precision) if not each.within]


def test_error_is_relative_to_path():
    """A tensor that no update moved is left out."""
    reference, path = {"a": np.zeros(2), "b": np.ones(2)}, {"a": 10.0, "b": 0.0}
    assert errors(reference, {"a": np.array([3.0, 4.0]), "b": np.zeros(2)}, path) == {"a": 0.5}


@pytest.mark.parametrize("error", [1e-4, 0.1, 0.2])
def test_independent_errors_of_one_size(error):
    for seed in range(50):
        assert not exceeded(rounded(2 * seed, error), rounded(2 * seed + 1, error)), seed


def test_missing_part_of_an_update():
    """Half of an update is noticed, of all tensors or of one."""
    mean = "mean error of 40 tensors from layers/0/kernel on"
    for error in (1e-4, 0.1, 0.15):
        one, several = rounded(0, error), rounded(1, error)
        half = {name: 0.5 * PATH[name] / 4 for name in NAMES}
        every = exceeded(one, {name: several[name] + half[name] for name in NAMES})
        assert {mean, *NAMES} == set(every)
        several[NAMES[7]] = several[NAMES[7]] + half[NAMES[7]]
        assert {NAMES[7]} == set(exceeded(one, several)) - {mean}


def test_larger_errors_of_all_tensors():
    """Errors `FACTOR` times as large, and half of that again, are noticed."""
    assert exceeded(rounded(0, 0.1), rounded(1, 1.5 * FACTOR * 0.1))


def test_too_inexact_to_compare():
    """If the error of one device exceeds `LARGEST`, the comparison does not pass."""
    (found,) = exceeded(rounded(0, 1.1 * LARGEST), rounded(1, 1.1 * LARGEST))
    assert found.endswith("on one device")


@pytest.mark.parametrize(("precision", "bound"), [("mixed_float16", 0.06), ("mixed_bfloat16", 0.2)])
def test_error_within_bound_of_one_layer(precision, bound):
    """Parts of the batch that cancel may round more, up to the bound of `bounds.bound`."""
    assert not exceeded(rounded(0, 0.001), rounded(1, 0.7 * bound), precision)
    assert exceeded(rounded(0, 0.001), rounded(1, 1.5 * bound), precision)


def test_nan_is_exceeded():
    several = {**rounded(1, 0.1), NAMES[0]: np.full(16, np.nan)}
    assert NAMES[0] in exceeded(rounded(0, 0.1), several)
