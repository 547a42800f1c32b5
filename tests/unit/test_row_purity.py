"""Row i of a layer's output depends on row i of the input only, and padding adds nothing."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.models.layers.activation import NAMES
from tapeline import models
from tests.layers import made, normal, outputs_and_gradients, training

IMAGE, SEQUENCE = (6, 7, 4), (5, 8)
LAYERS = {
    "convolution": (lambda: models.Convolution(6, groups=2, dilation=2, activation="gelu"), IMAGE),
    "depthwise": (lambda: models.DepthwiseConvolution(multiplier=2), IMAGE),
    "transposed": (lambda: models.ConvolutionTranspose(3, 4, 2, "SAME"), IMAGE),
    "average pool": (lambda: models.AveragePool(3, 2, "SAME"), IMAGE),
    "global average pool": (models.GlobalAveragePool, SEQUENCE),
    "reshape": (lambda: models.Reshape(-1, 4), IMAGE),
    "dense": (lambda: models.Dense(3, "silu"), SEQUENCE),
    "layer norm": (models.LayerNorm, SEQUENCE),
    "position embedding": (models.PositionEmbedding, SEQUENCE),
    "attention": (lambda: models.Attention(2, dropout=0.25), SEQUENCE),
    "causal attention": (lambda: models.Attention(4, causal=True), SEQUENCE),
    "residual": (
        lambda: models.Residual(models.LayerNorm(), models.Dropout(0.5), models.Dense(8)),
        SEQUENCE,
    ),
    "concatenate": (lambda: models.Concatenate([], models.Dense(2)), SEQUENCE),
} | {name: (lambda name=name: models.Activation(name), SEQUENCE) for name in NAMES}
DTYPES = [tf.float32, tf.bfloat16, tf.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", LAYERS)
def test_other_rows(name, dtype):
    """Padding rows change no bit of other rows' outputs and gradients, or of weight gradients."""
    make, shape = LAYERS[name]
    layer = made(make(), shape)
    mask = tf.constant([1.0, 1, 0, 1, 0])
    weight = tf.constant(np.random.default_rng(1).normal(size=(5, *layer.output_shape)))
    weight *= tf.cast(tf.reshape(mask, [-1] + [1] * len(layer.output_shape)), tf.float64)
    valid = tf.reshape(mask > 0, [-1] + [1] * len(shape))
    results = []
    largest = 10.0 if dtype == tf.float16 else 1000.0  # the product of two keys must not overflow
    for padding in (normal(*shape), tf.fill(shape, -largest / 3), tf.fill(shape, largest)):
        x = tf.cast(tf.where(valid, normal(5, *shape), padding), dtype)
        context = training(mask=mask, dtype=dtype)
        found = outputs_and_gradients(
            lambda x, context=context: layer(x, context), x, weight, layer.trainable_variables
        )
        y, slope, *gradients = found
        rows = np.flatnonzero(mask)
        results.append([y[rows], slope[rows], *gradients])
        assert not slope[np.flatnonzero(mask == 0)].any()
        assert layer(x, context).dtype == dtype
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", LAYERS)
def test_any_number_of_rows_in_one_trace(name):
    make, shape = LAYERS[name]
    layer, traces = made(make(), shape), []

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *shape])])
    def function(x):
        traces.append(1)
        y = layer(x, training())
        assert y.shape[1:] == layer.output_shape
        return y

    x = normal(7, *shape)
    whole = function(x)
    for rows in (1, 3):
        np.testing.assert_allclose(function(x[:rows]), whole[:rows], rtol=1e-4, atol=1e-5)
    assert len(traces) == 1


def test_causal_attention_sees_no_later_token():
    layer, x = made(models.Attention(2, causal=True), (6, 4)), normal(3, 6, 4)
    later = tf.concat([x[:, :4], normal(3, 2, 4, seed=1)], 1)
    context = models.ForwardContext()
    one, other = layer(x, context), layer(later, context)
    np.testing.assert_array_equal(one[:, :4], other[:, :4])
    assert not np.isclose(one[:, 4:], other[:, 4:]).any()
    free = made(models.Attention(2), (6, 4))
    assert not np.isclose(free(x, context), free(later, context)).any()


def test_attention_dropout_independent_of_replicas():
    layer, x = made(models.Attention(2, dropout=0.5), (5, 4)), normal(6, 5, 4)
    whole = layer(x, training())
    halves = [layer(x[row : row + 3], training(row=row)) for row in (0, 3)]
    np.testing.assert_allclose(whole, tf.concat(halves, 0), rtol=1e-5, atol=1e-6)
    assert np.abs(whole - layer(x, models.ForwardContext())).max() > 0.01


# Embeddings


@pytest.mark.parametrize("jit", [False, True])
def test_embedding_ignores_padding_ids(jit):
    """Ids of padding rows may be out of range, and have no gradient."""
    layer = made(models.Embedding(7, 3), (4,))
    mask = tf.constant([1.0, 1, 0])
    weight = tf.reshape(mask, [3, 1, 1])

    @tf.function(autograph=False, jit_compile=jit)
    def function(ids):
        with tf.GradientTape() as tape:
            y = layer(ids, training(mask=mask)) * weight
        return y, tape.gradient(y, layer.table)

    ids = np.random.default_rng(0).integers(0, 7, [3, 4])
    y, gradient = function(tf.constant(ids))
    other = ids.copy()
    other[2] = [-5, 7, 2**40, 3]
    for one, two in zip((y, gradient), function(tf.constant(other)), strict=True):
        np.testing.assert_array_equal(one, two)
    expected = np.bincount(ids[:2].ravel(), minlength=7)
    np.testing.assert_array_equal(gradient, np.repeat(expected[:, None], 3, 1))


def test_embedding_of_unknown_id():
    """An id out of range raises an error on a CPU, and has a NaN vector under XLA."""
    layer = made(models.Embedding(7, 3), ())
    ids = tf.constant([0, 7])
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"indices\[1\] = 7 is not in \[0, 7\)"
    ):
        layer(ids, models.ForwardContext())

    @tf.function(autograph=False, jit_compile=True)
    def compiled(ids):
        return layer(ids, models.ForwardContext())

    found = compiled(ids).numpy()
    np.testing.assert_array_equal(found[0], layer.table[0])
    assert np.isnan(found[1]).all()


def test_embedding_keeps_large_ids():
    """In bfloat16, which rounds ids above 256, each id still has its vector."""
    layer = made(models.Embedding(1000, 2), ())
    found = layer(tf.range(1000), models.ForwardContext(dtype=tf.bfloat16))
    np.testing.assert_array_equal(found, tf.cast(layer.table, tf.bfloat16))
    with pytest.raises(ValueError, match="embedding of 1000 ids takes integer ids, got float32"):
        layer(tf.range(1000.0), models.ForwardContext())


@pytest.mark.parametrize("jit", [False, True])
def test_embedding_gradient_is_dense_and_in_order(jit):
    """The gradient is a dense tensor, in which the rows of an id are summed in order."""
    layer = made(models.Embedding(5, 4), (300,))
    ids = tf.constant(np.random.default_rng(0).integers(0, 5, [8, 300]), tf.int32)
    upstream = normal(8, 300, 4)

    @tf.function(autograph=False, jit_compile=jit)
    def function():
        with tf.GradientTape() as tape:
            y = layer(ids, models.ForwardContext())
        gradient = tape.gradient(y, layer.table, output_gradients=upstream)
        assert isinstance(gradient, tf.Tensor)
        return gradient

    expected = np.zeros([5, 4], np.float32)
    for each, row in zip(np.ravel(ids), upstream.numpy().reshape(-1, 4), strict=True):
        expected[each] += row
    np.testing.assert_array_equal(function(), expected)
