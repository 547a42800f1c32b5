"""The global norm, compiled by XLA and not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.clipping import global_norm

SHAPES = [(1,), (31,), (32,), (33,), (784, 10), (3, 3, 5, 7)]


@pytest.mark.parametrize("compiled", [False, True])
def test_norm_of_all_tensors(compiled):
    random = np.random.default_rng(0)
    tensors = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    expected = math.sqrt(sum(float(np.sum(t.astype(np.float64) ** 2)) for t in tensors))
    length = tf.function(global_norm, jit_compile=compiled)
    found = length([tf.constant(t) for t in tensors], compiled)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("place", [0, 40, 99])
def test_nonfinite_element(bad, place, compiled):
    values = np.ones(100, np.float32)
    length = tf.function(global_norm, jit_compile=compiled)
    assert np.isfinite(length([tf.constant(values)], compiled))
    values[place] = bad
    assert not np.isfinite(length([tf.constant(values)], compiled))
