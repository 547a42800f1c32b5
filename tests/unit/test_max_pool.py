"""Max pools that XLA compiles equal TensorFlow's kernels, in values and gradients."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.keras_adapter import keras_model
from engine.models.max_pool import max_pool
from tapeline import models
from tests.laws.test_compiled import skip_without_float16

DTYPES = (tf.float32, tf.bfloat16, tf.float16)


def kernels(x, upstream, size, stride, padding):
    """Returns maxima and gradient by TensorFlow's own kernels, not by oneDNN's."""
    explicit = isinstance(padding, int) and padding > 0
    options = {
        "ksize": [1, *size, 1],
        "strides": [1, *stride, 1],
        "padding": "EXPLICIT" if explicit else padding or "VALID",
        "explicit_paddings": [0, 0, *[padding] * 4, 0, 0] if explicit else [],
    }
    maxima = tf.raw_ops.MaxPool(input=x, **options)
    if upstream is None:
        return maxima, None
    gradient = tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=maxima, grad=upstream, **options)
    return maxima, gradient


@functools.cache
def compiled(size, stride, padding, jit):
    """Returns a function that computes maxima and the gradient of images."""

    @tf.function(autograph=False, jit_compile=jit)
    def both(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            maxima = max_pool(x, size, stride, padding)
        return maxima, tape.gradient(maxima, x, output_gradients=upstream)

    return both


def assert_equal(x, size, stride, padding, seed, jit):
    """Asserts that values and gradients equal those of TensorFlow's kernels."""
    maxima, _ = kernels(x, None, size, stride, padding)
    upstream = tf.random.stateless_normal(maxima.shape, [seed, 1])
    upstream = tf.cast(upstream * 10, x.dtype)
    expected = kernels(x, upstream, size, stride, padding)
    found = compiled(size, stride, padding, jit)(x, upstream)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


WINDOWS = [
    ((2, 2), (2, 2), "VALID"),
    ((3, 3), (2, 2), 1),
    ((3, 2), (1, 2), "SAME"),
    ((3, 3), (2, 2), "VALID"),
    ((2, 2), (3, 3), "SAME"),
    ((3, 4), (1, 1), "SAME"),  # 12 windows of an element: more than an AddN adds at once
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(("size", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("jit", [True, None], ids=["XLA", "graph"])
def test_equals_kernels(size, stride, padding, dtype, jit):
    """Values and gradients are those of TensorFlow's kernels, with many ties."""
    if dtype == tf.float16:
        skip_without_float16()
    for seed in range(5):
        x = np.random.default_rng(seed).integers(0, 3, (2, 7, 8, 4))
        assert_equal(tf.cast(x, dtype), size, stride, padding, seed, jit)


@pytest.mark.many_graphs
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_window_equals_kernels(data):
    """Values and gradients are those of TensorFlow's kernels for any window, ties included."""
    integers = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    size, stride = (integers(1, 4), integers(1, 4)), (integers(1, 4), integers(1, 4))
    padding = data.draw(st.sampled_from(["VALID", "SAME", *range(1, min(size) // 2 + 1)]))
    sides = [integers(extent, 9) for extent in size]
    values = data.draw(st.sampled_from([[0.0], [0.0, 1.0], [-6e4, 2.0], [-0.0, 0.0, 1e-40]]))
    seed, dtype = integers(0, 1000), data.draw(st.sampled_from(DTYPES))
    x = np.random.default_rng(seed).choice(values, (2, *sides, 3))
    assert_equal(tf.cast(x, dtype), size, stride, padding, seed, None)


@pytest.mark.parametrize("padding", ["VALID", 1])
def test_window_of_negative_infinity(padding):
    """The maximum is -inf, where TensorFlow's kernels may give the lowest finite number."""
    x = tf.fill([1, 4, 4, 1], -np.inf)
    found, gradient = compiled((2, 2), (2, 2), padding, None)(
        x, max_pool(x, (2, 2), (2, 2), padding)
    )
    np.testing.assert_array_equal(found, tf.fill(found.shape, -np.inf))
    assert np.isneginf(gradient).sum() == found.shape.num_elements()


def test_many_positions():
    """Windows of more positions than int8 can index."""
    x = tf.cast(np.random.default_rng(0).integers(0, 900, (1, 30, 30, 2)), tf.float32)
    assert_equal(x, (14, 14), (9, 9), "VALID", 0, None)


@pytest.mark.parametrize("padding", ["VALID", "SAME", 1])
def test_layer_when_compiled(padding):
    """In a compiled training step, the layer has the values of its uncompiled self."""
    layer = models.MaxPool(3, 2, padding)
    layer.build((9, 8, 2), models.Initializer(0, 0, "max_pool"))
    x = tf.random.stateless_normal([2, 9, 8, 2], [0, 1])
    found = layer(x, models.ForwardContext(training=True, compiled=True))
    np.testing.assert_array_equal(found, layer(x, models.ForwardContext()))


KERAS = {
    "MaxPooling1D": (keras.layers.MaxPooling1D(3, 2, padding="same"), (9, 4), True),
    "MaxPooling2D": (keras.layers.MaxPooling2D((2, 3)), (8, 9, 4), True),
    "channels first": (
        keras.layers.MaxPooling2D(2, data_format="channels_first"),
        (2, 8, 8),
        False,
    ),
    "average": (keras.layers.AveragePooling2D(2), (8, 8, 2), True),
}


@pytest.mark.parametrize("name", KERAS)
def test_keras_layers(name):
    """Keras's max pools with the channels last have the compiled gradient; others have Keras's."""
    layer, shape, compiles = KERAS[name]
    model = keras.Sequential([keras.Input(shape), layer, keras.layers.Flatten()])
    model = keras_model(keras.Sequential([*model.layers, keras.layers.Dense(2)]), None)
    model.create_variables(tf.TensorSpec(shape))
    x = tf.random.stateless_normal([3, *shape], [0, 1])

    def gradient(compiled):
        context = models.ForwardContext(training=True, compiled=compiled)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(model(x, context)))
        return tape.gradient(loss, x)

    operations = tf.function(lambda: gradient(True)).get_concrete_function().graph.get_operations()
    assert compiles == all(op.type != "MaxPoolGrad" for op in operations)
    if compiles:
        found = tf.function(lambda: gradient(True), jit_compile=True)()
        np.testing.assert_allclose(found, gradient(False), rtol=1e-5, atol=1e-6)
