"""airbench94's network: parameters, initial values, and gradients beside TensorFlow's own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tapeline import models
from tests.layers import normal


def built(shape=(32, 32, 3), **arguments):
    return models.build(
        "airbench", input_shape=shape, output_shape=(10,), seed=0, arguments=arguments
    )


def test_parameters():
    """1.97 million: of convolutions without biases, offsets of norms, and the last layer."""
    with tf.Graph().as_default():  # which allocates no variable
        model = built()
    trained = sum(variable.shape.num_elements() for variable in model.trainable_variables)
    kernels = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    assert trained == kernels + 2 * (64 + 256 + 256) + 10 * 256 + 24 == 1_971_352
    assert model.layers[0].kernel.shape == (2, 2, 3, 24)  # not trained
    shapes = [shape for shape in model.output_shapes if len(shape) == 3]
    assert [shape[0] for shape in shapes] == [31] * 3 + [15] * 7 + [7] * 7 + [3] * 6 + [1]


def normalized(x):
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    return (x - mean) / tf.sqrt(variance + 1e-12)


def reference(x, whitening, bias, weights, head):
    """Returns the logits by TensorFlow's operations; `weights` are (kernel, offset) in order."""
    gelu = lambda x: tf.nn.gelu(x, approximate=False)  # noqa: E731
    x = gelu(tf.nn.conv2d(x, whitening, 1, "VALID") + bias)
    for place, (kernel, offset) in enumerate(weights):
        x = tf.nn.conv2d(x, kernel, 1, "SAME")
        if place % 2 == 0:
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = gelu(normalized(x) + offset)
    return tf.matmul(tf.reduce_max(x, [1, 2]), head) / 9


def test_matches_operations():
    model = built(widths=(8, 12, 12))
    model.layers[0].kernel.assign(normal(2, 2, 3, 24, seed=1))
    for seed, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.1 * normal(*variable.shape, seed=seed))
    x, up = normal(16, 32, 32, 3), tf.cast(normal(16, 10, seed=2), tf.float64)
    with tf.GradientTape() as tape:
        logits = model(x, models.ForwardContext(training=True))
        loss = tf.reduce_sum(tf.cast(logits, tf.float64) * up)
    found = tape.gradient(loss, model.trainable_variables)

    exact = [tf.cast(variable, tf.float64) for variable in model.trainable_variables]
    by_kind = {kind: [] for kind in ("kernel", "offset", "bias")}
    for variable, value in zip(model.trainable_variables, exact, strict=True):
        by_kind[variable.name.split("/")[-1][:-2]].append(value)
    *kernels, head = by_kind["kernel"]
    with tf.GradientTape() as tape:
        tape.watch(exact)
        whitening = tf.cast(model.layers[0].kernel, tf.float64)
        weights = list(zip(kernels, by_kind["offset"], strict=True))
        wanted = reference(tf.cast(x, tf.float64), whitening, *by_kind["bias"], weights, head)
        loss = tf.reduce_sum(wanted * up)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found, tape.gradient(loss, exact), strict=True):
        assert np.linalg.norm(ours.numpy() - theirs) <= 1e-3 * np.linalg.norm(theirs)


def test_starts_as_pools():
    """The first filters of the convolutions return their inputs, or those of the layer before."""
    model = built(widths=(32, 16))
    convolutions = [layer for layer in model.layers if isinstance(layer, models.Convolution)]
    first, second = convolutions[:2]
    x = normal(2, 31, 31, 24)
    np.testing.assert_array_equal(first(x, models.ForwardContext())[..., :24], x)
    assert np.abs(first.kernel.numpy()[..., 24:]).max() <= 1 / np.sqrt(9 * 24)
    np.testing.assert_array_equal(second.kernel[1, 1], np.eye(32))


@pytest.mark.parametrize(
    ("shape", "widths", "sizes"),
    [((8, 8, 1), (4, 6), 2), ((28, 28, 1), (4, 4, 4), 4), ((13, 40, 2), (5, 5), 3)],
)
def test_other_images(shape, widths, sizes):
    """The last pool is as large as the images that the blocks leave."""
    model = built(shape, widths=widths)
    pools = [layer for layer in model.layers if isinstance(layer, models.MaxPool)]
    assert len(pools) == sizes
    assert model(normal(3, *shape)).shape == (3, 10)


@pytest.mark.parametrize(
    ("shape", "arguments", "words"),
    [
        ((8, 8, 1), {}, "--model.widths=64,256,256: each block halves the images"),
        ((8, 8, 1), {"widths": ()}, "give the numbers of filters of one block"),
        ((8, 8, 1), {"widths": (4, 0)}, "give the numbers of filters of one block"),
        ((8, 8), {}, "takes images"),
        ((32, 32, 3), {"logit_scale": float("inf")}, "must be finite"),
    ],
)
def test_refused(shape, arguments, words):
    with pytest.raises(ValueError, match=words):
        built(shape, **arguments)
