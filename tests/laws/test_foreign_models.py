"""Tests laws L1, L2, L6 and L7 for Keras models and for a tf.Module (docs/concepts/laws.md)."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapeline
from engine.models.seeding import make_seeded
from engine.tasks.classification import Classification
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tests import rounding
from tests.choices import seldom
from tests.harness import CLASSES, Training, put_together, relative_difference, same_bits

EXAMPLES, BATCH = 44, 16  # so that the last batch of an epoch is partial
# Numbers of terms of the sums in a step: forward, backward, and over examples and places.
SUMS = {
    "convolutional": (
        *(9, 4, BATCH * 36),
        *[BATCH * 36] * 4,
        *(36, 8, BATCH),
        *[BATCH] * 4,
        8,
        BATCH,
    ),
    "module": (64, 16, BATCH, 16, CLASSES, BATCH),
}


def convolutional():
    """Returns a functional Keras model with batch norm, three noise layers and a regularizer."""
    x = i = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="tanh")(x)
    x = keras.layers.SpatialDropout2D(0.25)(keras.layers.BatchNormalization(momentum=0.8)(x))
    x = keras.layers.AveragePooling2D(2)(x)
    x = keras.layers.GaussianNoise(0.1)(keras.layers.Flatten()(x))
    x = keras.layers.Dense(8, "tanh", kernel_regularizer=keras.regularizers.L2(0.01))(x)
    x = keras.layers.BatchNormalization(momentum=0.8)(x)
    return tapeline.keras(keras.Model(i, keras.layers.Dense(CLASSES)(keras.layers.Dropout(0.3)(x))))


def switching():
    """Returns a sequential Keras model with ReLUs and a max pool."""
    inner = [
        keras.layers.Conv2D(4, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(CLASSES),
    ]
    return tapeline.keras(keras.Sequential([keras.Input((8, 8, 1)), *inner]))


class Recurrent(keras.Model):
    """A subclassed Keras model with an LSTM, whose dropout masks are drawn per micro-batch."""

    def __init__(self):
        super().__init__()
        self.squeeze = keras.layers.Reshape((8, 8))
        self.lstm = keras.layers.LSTM(6, dropout=0.3, recurrent_dropout=0.3)
        self.dense = keras.layers.Dense(CLASSES)

    def call(self, inputs):
        return self.dense(self.lstm(self.squeeze(inputs)))


def subclassed():
    return tapeline.keras(Recurrent(), tf.TensorSpec((8, 8, 1)))


class Linear(tf.Module):
    """A linear layer as in Sonnet: the first call creates the weight; calls get `is_training`."""

    def __init__(self, size):
        super().__init__()
        self.size, self.weight = size, None

    def __call__(self, x, is_training):
        if self.weight is None:
            shape = (x.shape[-1], self.size)
            self.weight = tf.Variable(tf.random.stateless_normal(shape, [1, 2]) * 0.1, name="w")
        return x @ self.weight


class Perceptron(tf.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Linear(16), Linear(CLASSES)]

    def __call__(self, x, is_training):
        x = tf.reshape(x, [-1, 64])
        return self.layers[1](tf.tanh(self.layers[0](x, is_training)), is_training)


def module():
    return tapeline.module(Perceptron, tf.TensorSpec((8, 8, 1)))


def training(make, replicas=1, shards=0, accumulate=1, seed=0, **options) -> Training:
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, EXAMPLES).astype(np.int32)
    images = random.normal(size=(EXAMPLES, 8, 8, 1)).astype(np.float32)
    images += labels[:, None, None, None] / 2
    layout = BatchLayout(replicas, accumulate, shards)
    plan = BatchPlan(examples=EXAMPLES, global_batch_size=BATCH, layout=layout, seed=seed)

    result = put_together(
        lambda: make_seeded(seed, make),
        lambda strategy: InMemoryFeed(images, labels, plan, strategy),
        Classification(),
        layout=layout,
        seed=seed,
        **options,
    )
    result.data = images, labels
    return result


@pytest.mark.parametrize("make", [convolutional, module])
@pytest.mark.parametrize("replicas", [2, seldom(4)])
def test_same_on_other_devices(make, replicas):
    """Weights and metrics on 2 and 4 devices match those on one device within rounding."""
    one, several = training(make, optimizer="sgd"), training(make, replicas, optimizer="sgd")
    first = one.weights()
    bound = rounding.of_sums(*SUMS[make.__name__])
    assert relative_difference(one.take(1).weights(), several.take(1).weights()) < bound
    assert relative_difference(one.take(11).weights(), several.take(11).weights()) < 1e-4
    assert all(np.any(a != b) for a, b in zip(first, one.weights(), strict=True))
    assert one.loop.traces == several.loop.traces == 1
    ours, theirs = (each.evaluate(*each.data, batch=BATCH) for each in (one, several))
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("make", [convolutional, seldom(switching), subclassed, module])
def test_same_bits_with_shards(make):
    one, two = (training(make, replicas, shards=2).take(7) for replicas in (1, 2))
    assert same_bits(one.weights(), two.weights())
    assert one.loop.traces == two.loop.traces == 1
    assert same_bits(one.weights(), training(make, shards=2).take(7).weights())


def test_norms_accumulate_as_micro_batches():
    """With two micro-batches, weights and batch norm statistics on two devices match one device."""
    one, two = (training(convolutional, r, accumulate=2, optimizer="sgd") for r in (1, 2))
    assert relative_difference(one.take(6).weights(), two.take(6).weights()) < 1e-4


def test_regularizer_counts_once():
    """A regularizer's gradient is added once to that of the mean loss, on any number of devices."""

    def penalized():
        dense = keras.layers.Dense(CLASSES, kernel_regularizer=keras.regularizers.L2(0.5))
        return tapeline.keras(
            keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), dense])
        )

    def plain():
        return tapeline.keras(
            keras.Sequential(
                [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
            )
        )

    for replicas, accumulate in ((1, 1), (2, 1), (2, 2)):
        options = {"replicas": replicas, "accumulate": accumulate, "optimizer": "sgd"}
        options["rule"] = {"momentum": 0.0}
        one, other = training(penalized, **options), training(plain, **options)
        kernel = one.state.model.weights["01_dense"]["kernel"].numpy()
        one.take(1), other.take(1)
        moved = other.state.model.weights["01_dense"]["kernel"].numpy()
        ours = one.state.model.weights["01_dense"]["kernel"].numpy()
        np.testing.assert_allclose(ours, moved - 0.01 * kernel, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "precision"), [(convolutional, "mixed_bfloat16"), (subclassed, "mixed_float16")]
)
def test_precisions_train(make, precision):
    run = training(make, replicas=2, precision=precision, ema=0.9)
    before = run.evaluate(*run.data, batch=BATCH)["loss"]
    run.take(30)
    assert run.evaluate(*run.data, batch=BATCH)["loss"] < before
    assert all(np.isfinite(weight).all() for weight in run.weights())


def test_ema_starts_from_the_same_weights():
    run = training(convolutional, ema=0.9)
    assert same_bits(run.weights(), [v.numpy() for v in run.state.ema.variables])
    names = [[v.name for v in model.variables] for model in (run.state.model, run.state.ema)]
    assert names[0] == names[1]
    run.take(2)
    assert not same_bits(run.weights(), [v.numpy() for v in run.state.ema.variables])


def test_nan_moves_nothing():
    """A step with NaN in the forward pass is skipped: weights and statistics stay bitwise equal."""
    run = training(convolutional)
    run.state.model.weights["00_conv2d"]["kernel"].assign_add(
        tf.fill([3, 3, 1, 4], np.float32("nan"))
    )
    before = run.weights()
    assert not run.loop.run(1).finite
    assert same_bits(before, run.weights())
