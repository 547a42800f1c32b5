"""The global norm, compiled by XLA and not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.clipping import global_norm

SHAPES = [(1,), (31,), (32,), (33,), (784, 10), (3, 3, 5, 7), (0, 4), (128, 128), (512, 512)]
SMALL, CONFLICTING = 100, 2 * 32 * 512  # numbers; rows of 2 KiB and multiples share cache sets


@pytest.mark.parametrize("compiled", [False, True])
def test_norm_of_all_tensors(compiled):
    random = np.random.default_rng(0)
    tensors = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    expected = math.sqrt(sum(float(np.sum(t.astype(np.float64) ** 2)) for t in tensors))
    length = tf.function(global_norm, jit_compile=compiled)
    found = length([tf.constant(t) for t in tensors], compiled)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("numbers", [16, SMALL, CONFLICTING - 1, CONFLICTING, CONFLICTING + 1])
def test_each_number_counts_once(numbers):
    """Sums of the squares of 1 and 2 are exact in any order."""
    values = np.random.default_rng(numbers).integers(1, 3, numbers)
    length = tf.function(global_norm, jit_compile=True)([tf.constant(values, tf.float32)], True)
    assert float(length) == np.float32(math.sqrt(np.sum(values**2)))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    ("numbers", "place"),
    [(SMALL, 0), (SMALL, 40), (SMALL, 99), *((CONFLICTING, at) for at in (0, 20_000, 32_767))],
)
def test_nonfinite_element(bad, numbers, place, compiled):
    values = np.ones(numbers, np.float32)
    length = tf.function(global_norm, jit_compile=compiled)
    assert np.isfinite(length([tf.constant(values)], compiled))
    values[place] = bad
    assert not np.isfinite(length([tf.constant(values)], compiled))
