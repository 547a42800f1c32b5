"""Outputs and gradients of layers equal those of Keras's layers with the same weights.

Keras's layers compute in float64. In float32, a layer may differ by 1e-6, relative in norm, or by
the error of a long sum. In bfloat16, each rounding contributes an error of at most u = 2^-8; the
errors of a tensor's elements have unrelated signs, so that `roundings` of them add up to
sqrt(roundings) u in norm, and hardly ever to twice that (see tests/rounding.py). Shapes are large
enough that a whole tensor hardly cancels.
"""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.layers.activation import NAMES
from tapeline import models
from tests.layers import differences, made, normal

FLOAT32 = 1e-6
UNIT = 2.0**-8  # unit roundoff of bfloat16
SIDES = st.integers(3, 9)
PADDINGS = st.sampled_from(["VALID", "SAME"])
EXAMPLES = settings(max_examples=5, derandomize=True)


def same(array):
    return array


def check(layer, twin, pairs, x, roundings):
    # A gradient is a sum over all positions; added one by one, its error grows as their root.
    positions = x.shape[0] * math.prod(layer.output_shape[:-1])
    allowed = max(FLOAT32, 2 * positions**0.5 * 2.0**-24)
    assert max(differences(layer, twin, pairs, x)) <= allowed
    found = differences(layer, twin, pairs, x, tf.bfloat16)
    assert max(found) <= 2 * roundings**0.5 * UNIT


def on_images(layer, twin, x, change=same):
    """Builds the Keras convolution `twin`, and compares a convolution with it."""
    twin.build(x.shape)
    pairs = [(layer.kernel, twin.kernel, change), (layer.bias, twin.bias, same)]
    # Input, kernel, product, bias, sum, activation, and the same on the way back.
    check(layer, twin, pairs, x, roundings=12)
    assert layer(x, models.ForwardContext()).shape[1:] == layer.output_shape


@EXAMPLES
@given(st.data())
def test_convolution(data):
    groups, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    stride = data.draw(st.integers(1, 3))
    dilation = data.draw(st.integers(1, 3)) if stride == 1 else 1
    padding = data.draw(PADDINGS)
    extent = (size - 1) * dilation + 1
    height, width = (extent + data.draw(SIDES) for _ in range(2))
    channels, filters = (groups * data.draw(st.integers(4, 6)) for _ in range(2))
    x = normal(4, height, width, channels)
    layer = models.Convolution(
        *(filters, size, stride, padding, "silu"), dilation=dilation, groups=groups
    )
    made(layer, x.shape[1:])
    twin = keras.layers.Conv2D(
        *(filters, size, stride, padding.lower()),
        dilation_rate=dilation,
        groups=groups,
        activation="silu",
        dtype="float64",
    )
    on_images(layer, twin, x)


@EXAMPLES
@given(st.data())
def test_symmetric_padding(data):
    """An integer pads each side by as many zeros, with any stride or dilation."""
    size, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    dilation = data.draw(st.integers(1, 2)) if stride == 1 else 1
    padding, extent = data.draw(st.integers(0, 3)), (size - 1) * dilation + 1
    x = normal(4, extent + data.draw(SIDES), extent + data.draw(SIDES), 4)
    layer = models.Convolution(5, size, stride, padding, "silu", dilation=dilation)
    made(layer, x.shape[1:])
    inner = keras.layers.Conv2D(
        5, size, stride, dilation_rate=dilation, activation="silu", dtype="float64"
    )
    inner.build((4, *(side + 2 * padding for side in x.shape[1:3]), 4))
    zeros = keras.layers.ZeroPadding2D(padding, dtype="float64")
    pairs = [(layer.kernel, inner.kernel, same), (layer.bias, inner.bias, same)]
    check(layer, lambda x: inner(zeros(x)), pairs, x, roundings=12)
    assert layer(x, models.ForwardContext()).shape[1:] == layer.output_shape


@EXAMPLES
@given(st.data())
def test_depthwise_convolution(data):
    size, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    padding, multiplier = data.draw(PADDINGS), data.draw(st.integers(1, 3))
    x = normal(4, size + data.draw(SIDES), size + data.draw(SIDES), data.draw(st.integers(4, 6)))
    layer = models.DepthwiseConvolution(size, stride, padding, "tanh", multiplier=multiplier)
    made(layer, x.shape[1:])
    twin = keras.layers.DepthwiseConv2D(
        *(size, stride, padding.lower(), multiplier), activation="tanh", dtype="float64"
    )
    on_images(layer, twin, x, lambda kernel: kernel.reshape([size, size, x.shape[-1], -1]))


@EXAMPLES
@given(st.data())
def test_transposed_convolution(data):
    size, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    filters, padding = data.draw(st.integers(4, 6)), data.draw(PADDINGS)
    x = normal(4, data.draw(SIDES), data.draw(SIDES), data.draw(st.integers(4, 6)))
    layer = made(models.ConvolutionTranspose(filters, size, stride, padding), x.shape[1:])
    twin = keras.layers.Conv2DTranspose(filters, size, stride, padding.lower(), dtype="float64")
    on_images(layer, twin, x, lambda kernel: kernel.transpose([0, 1, 3, 2]))


@EXAMPLES
@given(st.data())
def test_average_pool(data):
    size, padding = data.draw(st.integers(1, 4)), data.draw(PADDINGS)
    stride = data.draw(st.none() | st.integers(1, 4))
    x = normal(4, size + data.draw(SIDES), size + data.draw(SIDES), 3)
    layer = made(models.AveragePool(size, stride, padding), x.shape[1:])
    twin = keras.layers.AveragePooling2D(size, stride, padding.lower(), dtype="float64")
    check(layer, twin, [], x, roundings=2)
    assert layer(x, models.ForwardContext()).shape[1:] == layer.output_shape


@EXAMPLES
@given(st.lists(st.integers(1, 6), max_size=3), st.integers(4, 9), st.integers(4, 9))
def test_dense(axes, inputs, units):
    x = normal(8, *axes, inputs)
    layer, twin = models.Dense(units, "gelu"), keras.layers.Dense(units, "gelu", dtype="float64")
    made(layer, x.shape[1:])
    twin.build(x.shape)
    pairs = [(layer.kernel, twin.kernel, same), (layer.bias, twin.bias, same)]
    check(layer, twin, pairs, x, roundings=24)
    assert layer.output_shape == (*axes, units)


@EXAMPLES
@given(
    st.lists(st.integers(1, 6), max_size=2),
    st.integers(8, 40),
    st.sampled_from([1e-5, 1e-3]),
    st.booleans(),
)
def test_layer_norm(axes, features, epsilon, use_offset):
    x = normal(4, *axes, features)
    layer = made(models.LayerNorm(epsilon, use_offset=use_offset), x.shape[1:])
    twin = keras.layers.LayerNormalization(epsilon=epsilon, center=use_offset, dtype="float64")
    twin.build(x.shape)
    pairs = [(layer.scale, twin.gamma, same)]
    pairs += [(layer.offset, twin.beta, same)] if use_offset else []
    float32 = differences(layer, twin, pairs, x)
    assert max(float32) <= FLOAT32
    output, *_ = differences(layer, twin, pairs, x, tf.bfloat16)
    assert output <= 2 * UNIT  # statistics are of float32


def test_layer_norm_of_large_mean():
    """The variance is accurate even if the mean is large."""
    x = normal(8, 64) + 1000
    layer = made(models.LayerNorm(), (64,))
    exact = x.numpy().astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    expected = exact * layer.scale.numpy() + layer.offset.numpy()
    # The mean is rounded to 1000 * 2^-24 = 6e-5.
    np.testing.assert_allclose(layer(x, models.ForwardContext()), expected, atol=3e-4)


@EXAMPLES
@given(st.data())
def test_attention(data):
    heads, units = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 4))
    causal, tokens = data.draw(st.booleans()), data.draw(st.integers(4, 9))
    x = normal(4, tokens, heads * units)
    layer = made(models.Attention(heads, causal), x.shape[1:])
    twin = keras.layers.MultiHeadAttention(heads, units, dtype="float64", flash_attention=False)
    twin.build(x.shape, x.shape)
    theirs = iter(twin.trainable_variables)
    pairs = []
    for dense in (layer.query, layer.key, layer.value, layer.output):
        for variable in (dense.kernel, dense.bias if dense.has_bias else None):
            of_keras = next(theirs)
            shape = tuple(of_keras.shape)
            if variable is None:
                of_keras.assign(np.zeros(shape))
            else:
                pairs.append((variable, of_keras, lambda array, shape=shape: array.reshape(shape)))

    def function(x):
        return twin(x, x, use_causal_mask=causal)

    # The gradient of a softmax is a difference, which vanishes where the attention is even.
    float32 = differences(layer, function, pairs, x, floor=0.1)
    bfloat16 = differences(layer, function, pairs, x, tf.bfloat16, floor=0.1)
    # Some 60 roundings from the input to the output and back.
    assert max(float32) <= FLOAT32
    assert max(bfloat16) <= 2 * 60**0.5 * UNIT


@EXAMPLES
@given(
    st.lists(st.integers(1, 7), max_size=2),
    st.integers(1, 300),
    st.integers(1, 8),
    st.sampled_from([tf.uint8, tf.int32, tf.int64]),
)
def test_embedding(axes, vocabulary, units, dtype):
    ids = np.random.default_rng(0).integers(0, min(vocabulary, 256), [5, *axes])
    layer = made(models.Embedding(vocabulary, units), tuple(axes))
    twin = keras.layers.Embedding(vocabulary, units, dtype="float64")
    twin.build(None)
    pairs = [(layer.table, twin.embeddings, same)]
    check(layer, twin, pairs, tf.constant(ids, dtype), roundings=1)


@pytest.mark.parametrize("name", NAMES)
def test_activation(name):
    x = normal(4, 5, 6)
    layer = made(models.Activation(name), x.shape[1:])
    check(layer, keras.activations.get(name), [], x, roundings=16)
    dense = made(models.Dense(3, name), x.shape[1:])
    plain = made(models.Dense(3), x.shape[1:])
    context = models.ForwardContext()
    found = dense(x, context)
    expected = models.Activation(name)(plain(x, context), context)
    np.testing.assert_array_equal(found, expected)
