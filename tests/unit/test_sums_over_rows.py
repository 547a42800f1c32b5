"""Gradients that are sums over rows and positions are summed in float32, also in 16 bits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.models.sequential import Sequential
from tapeline import models
from tests.layers import training

# A sum of terms of one sign, in bfloat16, stops growing at 256 times its terms.
ROWS, TOKENS, UNITS = 64, 32, 8
IMAGES, SEQUENCES = (8, 8, 4), (TOKENS, UNITS)
UNIT = {tf.bfloat16: 2.0**-9, tf.float16: 2.0**-12}
LAYERS = {
    "dense": ([models.Dense(4, "relu")], (UNITS,)),
    "dense of sequences": ([models.Dense(4)], SEQUENCES),
    "convolution": ([models.Convolution(4, padding="SAME", activation="relu")], IMAGES),
    "groups": ([models.Convolution(4, groups=2)], IMAGES),
    "padding": ([models.Convolution(4, padding=1, stride=2)], IMAGES),
    "pooled convolution": ([models.Convolution(4, activation="relu"), models.MaxPool()], IMAGES),
    "depthwise": ([models.DepthwiseConvolution()], IMAGES),
    "transposed": ([models.ConvolutionTranspose(4, 2, 2)], IMAGES),
    "whitening": ([models.Whitening(2)], IMAGES),
    "attention": ([models.Attention(2)], SEQUENCES),
    "layer norm": ([models.LayerNorm()], SEQUENCES),
    "batch norm": ([models.BatchNorm()], SEQUENCES),
    "position": ([models.PositionEmbedding()], SEQUENCES),
    "class token": ([models.ClassToken()], SEQUENCES),
    "embedding": ([models.Embedding(2, UNITS)], (TOKENS,)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", UNIT, ids=lambda dtype: dtype.name)
def test_summed_in_float32(name, dtype):
    """The gradient of a bias, an offset or a table is the sum in float64, rounded once or twice."""
    layers, shape = LAYERS[name]
    random = np.random.default_rng(0)
    images = name != "embedding"
    inputs = random.normal(size=(ROWS * 16 if shape == (UNITS,) else ROWS, *shape))
    if not images:
        inputs = random.integers(0, 2, inputs.shape)
    x = tf.constant(inputs.astype(np.float32 if images else np.int64))
    network = Sequential("network", layers, list(shape), 0)
    upstream = random.uniform(0.5, 1.5, (*x.shape[:1], *network.output_shapes[-1])) / ROWS
    upstream = tf.cast(tf.cast(upstream, dtype), tf.float32)
    # The variable whose gradient is a sum of `upstream`.
    names = "output_dense/bias", "bias", "offset", "table", "token"
    variables = network.trainable_variables
    variable = next(v for name in names for v in variables if v.name.endswith(f"{name}:0"))
    if "bias" in variable.name:
        variable.assign(tf.fill(variable.shape, 100.0))  # so that every ReLU is active

    @tf.function(autograph=False)
    def gradient(x, upstream):
        with tf.GradientTape() as tape:
            outputs = network(x, training(dtype=dtype))
        return tape.gradient(outputs, variable, output_gradients=upstream)

    found = gradient(x, upstream).numpy().astype(np.float64)
    terms = upstream.numpy().astype(np.float64)
    if name == "embedding":
        expected = np.stack([terms[inputs == each].sum(0) for each in range(2)])
    elif name == "class token":
        expected = terms[:, 0].sum(0)
    elif name == "position":
        expected = terms.sum(0)
    else:
        expected = terms.reshape(-1, terms.shape[-1]).sum(0)
    np.testing.assert_allclose(found, expected, rtol=4 * UNIT[dtype])
