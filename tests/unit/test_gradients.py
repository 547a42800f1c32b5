"""Tests of functions with gradients of their own, against float64, in the graph and under XLA."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.layers.activation import gelu
from engine.models.layers.attention import attended
from engine.models.layers.normalization import normalized
from engine.tasks import cross_entropy as losses
from engine.tasks.cross_entropy import cross_entropy
from tests.layers import normal

EXAMPLES = settings(max_examples=8, deadline=None)
UNIT = {tf.float32: 2.0**-24, tf.bfloat16: 2.0**-9, tf.float16: 2.0**-12}
DTYPES = st.sampled_from(list(UNIT))


def values(function, inputs, upstream, compiled):
    """Returns an output and the gradients of `inputs`, as float64 arrays."""

    @tf.function(autograph=False, jit_compile=compiled)
    def both(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = function(*inputs)
        return output, tape.gradient(output, inputs, output_gradients=upstream)

    output, gradients = both(*inputs)
    return [tf.cast(each, tf.float64).numpy() for each in (output, *gradients)]


def check(function, reference, inputs, dtype, roundings, compiled, floor=0.0):
    """Compares a function with a reference, which is called in float64, within rounding.

    The bound is `roundings` units of `dtype`, of the norm of each array; `floor` is a lower limit
    of this norm, as a fraction of the largest.
    """
    inputs = [tf.cast(each, dtype) for each in inputs]
    output = function(*inputs)
    upstream = tf.cast(normal(*output.shape, seed=9), output.dtype)
    found = values(function, inputs, upstream, compiled)
    wide = [tf.cast(each, tf.float64) for each in inputs]
    expected = values(reference, wide, tf.cast(upstream, tf.float64), False)
    least = floor * max(np.linalg.norm(each) for each in expected)
    for ours, theirs in zip(found, expected, strict=True):
        bound = roundings * UNIT[dtype] * max(np.linalg.norm(theirs), least)
        assert np.linalg.norm(ours - theirs) <= bound


@EXAMPLES
@given(st.integers(1, 40), DTYPES, st.sampled_from([0.1, 1.0, 4.0]), st.booleans())
def test_gelu(features, dtype, scale, compiled):
    check(gelu, tf.nn.gelu, [normal(3, features) * scale], dtype, 8, compiled)


def test_gelu_of_extremes():
    """Large inputs give no nan; the slope far from 0 is 0 or 1."""
    x = tf.constant([-1e30, -100.0, 0.0, 100.0, 1e30])
    output, slope = values(gelu, [x], tf.ones_like(x), False)
    np.testing.assert_array_equal(output, [0, 0, 0, 100, np.float32(1e30)])
    np.testing.assert_array_equal(slope, [0, 0, 0.5, 1, 1])


@EXAMPLES
@given(st.lists(st.integers(1, 5), max_size=2), st.integers(8, 40), st.booleans())
def test_layer_norm(axes, features, compiled):
    x = normal(4, *axes, features)
    scale, offset = 1 + 0.3 * normal(features, seed=1), normal(features, seed=2)

    def reference(x, scale, offset):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-5) * scale + offset

    function = lambda *inputs: normalized(*inputs, 1e-5)  # noqa: E731
    check(function, reference, [x, scale, offset], tf.float32, 40, compiled)


@EXAMPLES
@given(st.data())
def test_attended(data):
    tokens, units = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 8))
    shape = 2, data.draw(st.integers(1, 3)), tokens, units
    dtype, compiled = data.draw(DTYPES), data.draw(st.booleans())
    seen = np.tri(tokens, dtype=bool) if data.draw(st.booleans()) else None
    mask = None
    if data.draw(st.booleans()):
        kept = np.random.default_rng(4).random((*shape[:3], tokens)) < 0.75
        mask = tf.constant(np.where(kept, 4 / 3, 0))
    inputs = [normal(*shape, seed=seed) for seed in range(3)]

    def function(query, key, value):
        return attended(query, key, value, seen, None if mask is None else tf.cast(mask, dtype))

    def reference(query, key, value):
        scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(units)
        scores = scores if seen is None else tf.where(seen, scores, -np.inf)
        weights = tf.nn.softmax(scores)
        return tf.matmul(weights if mask is None else weights * mask, value)

    # The gradient of a softmax is a difference, which vanishes where the attention is even.
    check(function, reference, inputs, dtype, 60, compiled, floor=0.1)


@EXAMPLES
@given(st.data())
def test_cross_entropy(data):
    """A few and many classes, of which each has its own code."""
    axes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    classes = data.draw(st.sampled_from([2, 65, losses._MANY, losses._MANY + 1, 3000]))
    dtype, compiled = data.draw(DTYPES), data.draw(st.booleans())
    kind = data.draw(st.sampled_from([np.int32, np.int64] + [np.uint8] * (classes < 256)))
    labels = tf.constant(np.random.default_rng(2).integers(0, classes, axes, kind))

    def reference(logits):
        indices = tf.cast(labels, tf.int64)
        return -tf.gather(tf.nn.log_softmax(logits), indices, batch_dims=len(axes))

    logits = 3 * normal(*axes, classes) + 50
    logits = tf.cast(tf.cast(logits, dtype), tf.float32)
    found = cross_entropy(labels, tf.cast(logits, dtype))
    assert found.dtype == tf.float32 and found.shape == axes
    # Of 16-bit logits only the gradient is rounded.
    np.testing.assert_allclose(found, reference(tf.cast(logits, tf.float64)), rtol=2e-5)
    check(lambda x: cross_entropy(labels, x), reference, [logits], dtype, 200, compiled)


@pytest.mark.parametrize("compiled", [False, True])
def test_label_out_of_range(compiled):
    """A label out of range is an error or makes its loss nan; it is never taken for another."""
    function = tf.function(cross_entropy, jit_compile=compiled)
    for classes in (4, losses._MANY + 1):
        try:
            found = function(tf.constant([0, classes]), normal(2, classes))
        except tf.errors.InvalidArgumentError:
            continue
        assert np.isfinite(found[0]) and np.isnan(found[1])
