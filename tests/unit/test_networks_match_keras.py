"""Logits and gradients of built-in networks equal those of the same networks of Keras's layers.

Keras's layers compute in float64, with the same weights. The networks are written here a second
time, from Keras's layers and operations alone.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

from tapeline import models
from tests.layers import normal

LOGITS, GRADIENTS = 1e-4, 1e-3  # largest relative differences, in norm


class Twins:
    """Keras's layers in the order of their calls, in float64."""

    def __init__(self):
        self.layers = []

    def __call__(self, kind, *arguments, **named):
        layer = kind(*arguments, **named, dtype="float64")
        self.layers.append(layer)
        return layer

    def convolved(self, x, filters, size, stride=1):
        """Returns a symmetrically padded convolution with a batch norm."""
        x = kl.ZeroPadding2D(size // 2, dtype="float64")(x) if size > 1 else x
        x = self(kl.Conv2D, filters, size, stride, use_bias=False)(x)
        return self(kl.BatchNormalization, momentum=0.9, epsilon=1e-5)(x)


def relu(x):
    return kl.ReLU(dtype="float64")(x)


def resnet_50(twins):
    """Returns a Keras model of ResNet-50, version 1.5, for 10 classes."""
    inputs = keras.Input((64, 64, 3), dtype="float64")
    x = relu(twins.convolved(inputs, 64, 7, 2))
    x = kl.MaxPooling2D(3, 2, dtype="float64")(kl.ZeroPadding2D(1, dtype="float64")(x))
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            y = relu(twins.convolved(x, width, 1))
            y = relu(twins.convolved(y, width, 3, stride))
            y = twins.convolved(y, 4 * width, 1)
            if block == 0:
                x = twins.convolved(x, 4 * width, 1, stride)
            x = relu(x + y)
    x = kl.GlobalAveragePooling2D(dtype="float64")(x)
    return keras.Model(inputs, twins(kl.Dense, 10)(x))


def resnet_20(twins):
    """Returns a Keras model of ResNet-20 for CIFAR-10, with shortcuts of option A."""
    inputs = keras.Input((16, 16, 3), dtype="float64")
    x = relu(twins.convolved(inputs, 16, 3))
    for width in (16, 32, 64):
        for block in range(3):
            stride = 2 if width > 16 and block == 0 else 1
            y = relu(twins.convolved(x, width, 3, stride))
            y = twins.convolved(y, width, 3)
            if stride == 2:
                x = ops.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [0, width // 2]])
            x = relu(x + y)
    x = kl.GlobalAveragePooling2D(dtype="float64")(x)
    return keras.Model(inputs, twins(kl.Dense, 10)(x))


def block(twins, x, units, heads, epsilon, causal=False):
    """Returns the output of a pre-norm transformer block."""
    y = twins(kl.LayerNormalization, epsilon=epsilon)(x)
    attention = twins(kl.MultiHeadAttention, heads, units // heads, flash_attention=False)
    x = x + attention(y, y, use_causal_mask=causal)
    y = twins(kl.LayerNormalization, epsilon=epsilon)(x)
    y = twins(kl.Dense, 4 * units)(y)
    y = keras.activations.gelu(y, approximate=False)
    return x + twins(kl.Dense, units)(y)


class Table(kl.Layer):
    """Holds a table of vectors; puts the first one before a sequence, or adds all to it."""

    def __init__(self, shape, prepend=False, **named):
        super().__init__(**named)
        self.prepend = prepend
        self.table = self.add_weight(shape=shape)

    def call(self, x):
        if not self.prepend:
            return x + self.table
        token = ops.broadcast_to(self.table, (ops.shape(x)[0], 1, self.table.shape[-1]))
        return ops.concatenate([token, x], 1)


def vit_tiny(twins):
    """Returns a Keras model of ViT-Ti with patches of 4x4, for images of 12x16."""
    inputs = keras.Input((12, 16, 3), dtype="float64")
    x = kl.Reshape((12, 192), dtype="float64")(twins(kl.Conv2D, 192, 4, 4)(inputs))
    x = twins(Table, (192,), prepend=True)(x)
    x = twins(Table, (13, 192))(x)
    for _ in range(12):
        x = block(twins, x, 192, 3, 1e-6)
    x = twins(kl.LayerNormalization, epsilon=1e-6)(x)
    return keras.Model(inputs, twins(kl.Dense, 10)(x[:, 0]))


def gpt(twins):
    """Returns a Keras model of a decoder of 3 blocks with learned positions, tied embeddings."""
    inputs = keras.Input((16,), dtype="int32")
    embedding = twins(kl.Embedding, 37, 24)
    x = twins(Table, (16, 24))(embedding(inputs))
    for _ in range(3):
        x = block(twins, x, 24, 4, 1e-5, causal=True)
    x = twins(kl.LayerNormalization, epsilon=1e-5)(x)
    return keras.Model(inputs, Tied(embedding, dtype="float64")(x))


class Tied(kl.Layer):
    def __init__(self, embedding, **named):
        super().__init__(**named)
        self.embedding = embedding

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))


def rotated(x):
    """Rotates [rows, tokens, heads, 6] as complex numbers: halves are real and imaginary parts."""
    angles = np.arange(16)[:, None] * 10_000.0 ** (-np.arange(3) / 3)
    turn = tf.constant(np.exp(1j * angles)[:, None, :])
    turned = tf.complex(x[..., :3], x[..., 3:]) * turn
    return tf.concat([tf.math.real(turned), tf.math.imag(turned)], -1)


class Rotary(kl.Layer):
    """Causal attention of 4 heads of 6 units, with rotary positions."""

    def __init__(self, **named):
        super().__init__(**named)
        parts = [kl.Dense(24, dtype="float64") for _ in range(4)]
        self.query, self.key, self.value, self.out = parts

    def call(self, x):
        shape = (-1, 16, 4, 6)
        q, k, v = (tf.reshape(each(x), shape) for each in (self.query, self.key, self.value))
        scores = tf.einsum("rihd,rjhd->rhij", rotated(q), rotated(k)) / 6**0.5
        hidden = np.triu(np.ones([16, 16]), 1) * -1e30
        mixed = tf.einsum("rhij,rjhd->rihd", tf.nn.softmax(scores + hidden), v)
        return self.out(tf.reshape(mixed, (-1, 16, 24)))


def rotary(twins):
    """Returns a Keras model of a decoder of one block, with rotary positions, not tied."""
    inputs = keras.Input((16,), dtype="int32")
    x = twins(kl.Embedding, 37, 24)(inputs)
    y = twins(kl.LayerNormalization, epsilon=1e-5)(x)
    x = x + twins(Rotary)(y)
    y = twins(kl.LayerNormalization, epsilon=1e-5)(x)
    y = keras.activations.gelu(twins(kl.Dense, 96)(y), approximate=False)
    x = x + twins(kl.Dense, 24)(y)
    x = twins(kl.LayerNormalization, epsilon=1e-5)(x)
    return keras.Model(inputs, twins(kl.Dense, 37, use_bias=False)(x))


def leaves(layers):
    """Returns the layers with variables, in the order of their calls: branches before shortcuts."""
    found = []
    for layer in layers:
        parts = getattr(layer, "parts", None)
        found += [x for part in parts for x in leaves(part.layers)] if parts else [layer]
    return [layer for layer in found if layer.trainable_variables]


def variables_of(layer):
    """Returns the variables of a layer in the order of Keras's variables."""
    if isinstance(layer, models.Attention):
        key_bias = layer.key.bias if layer.key.has_bias else layer.key_bias
        biases = [layer.query.bias, key_bias, layer.value.bias, layer.output.bias]
        kernels = [x.kernel for x in (layer.query, layer.key, layer.value, layer.output)]
        return [each for pair in zip(kernels, biases, strict=True) for each in pair]
    names = ("kernel", "bias", "scale", "offset", "table", "token")
    return [getattr(layer, name) for name in names if hasattr(layer, name)]


def loss_of(logits, labels):
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float64))
    return tf.reduce_mean(losses)


def gradients_of(function, variables, inputs, labels):
    with tf.GradientTape() as tape:
        logits = function(inputs)
        loss = loss_of(logits, labels)
    found = tape.gradient(loss, variables)
    return [np.asarray(tf.convert_to_tensor(each), np.float64) for each in (logits, *found)]


def apart(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("name", "twin", "shape", "arguments"),
    [
        ("resnet", resnet_50, (64, 64, 3), {"depth": 50}),
        ("resnet", resnet_20, (16, 16, 3), {"depth": 20}),
        ("vit", vit_tiny, (12, 16, 3), {"size": "Ti", "patch": 4}),
        ("transformer", gpt, (16,), {"layers": 3, "heads": 4, "width": 24}),
        (
            "transformer",
            rotary,
            (16,),
            {"layers": 1, "heads": 4, "width": 24, "positions": "rotary", "tied": False},
        ),
    ],
    ids=["resnet50", "resnet20", "vit", "transformer", "rotary"],
)
def test_matches_keras(name, twin, shape, arguments):
    twins = Twins()
    theirs = twin(twins)
    is_text = name == "transformer"
    model = models.build(
        name,
        input_shape=shape,
        output_shape=(16, 37) if is_text else (10,),
        seed=3,
        arguments=arguments,
        input_dtype=tf.int32 if is_text else tf.float32,
    )
    random = np.random.default_rng(0)
    rows = 4 if name == "resnet" else 2
    ids = tf.constant(random.integers(0, 37, (rows, *shape)))
    inputs = ids if is_text else normal(rows, *shape)
    labels = random.integers(0, 10, [rows, 16] if is_text else rows)
    pairs, cancelled = [], set()
    # With scales near 1, 16 blocks of random weights amplify a rounding error a hundredfold, and it
    # switches ReLUs. Trained blocks end with small scales.
    ends = {id(x.branch[-1].scale) for x in model.layers if isinstance(x, models.Residual)}
    made = leaves(model.layers)
    assert len(made) == len(twins.layers)
    for layer, of_keras in zip(made, twins.layers, strict=True):
        cancelled |= {id(each) for each in getattr(layer, "cancelled_variables", ())}
        for number, (ours, their) in enumerate(
            zip(variables_of(layer), of_keras.trainable_variables, strict=True)
        ):
            if ours.shape.rank == 1:
                ours.assign_add(0.3 * normal(*ours.shape, seed=number))
            if id(ours) in ends:
                ours.assign(0.05 * ours)
            their.assign(ours.numpy().reshape(their.shape))
            pairs.append((ours, their))
    assert len(pairs) == len(model.trainable_variables) == len(theirs.trainable_variables)
    context = models.ForwardContext(training=True)
    found = gradients_of(lambda x: model(x, context), [ours for ours, _ in pairs], inputs, labels)
    exact = inputs if is_text else tf.cast(inputs, tf.float64)
    expected = gradients_of(
        lambda x: theirs(x, training=True), [their.value for _, their in pairs], exact, labels
    )
    assert apart(found[0], expected[0]) <= LOGITS
    largest = max(np.linalg.norm(each) for each in expected[1:])
    for (ours, _), a, b in zip(pairs, found[1:], expected[1:], strict=True):
        if id(ours) in cancelled:  # mathematically 0
            assert not a.any() and np.linalg.norm(b) <= 1e-12 * largest, ours.name
        else:
            assert apart(a.reshape(b.shape), b) <= GRADIENTS, ours.name
