import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.models.registry import NETWORKS
from tapeline import models

SEEDS = tuple(f"seed_00{number}" for number in range(5))
BUILT_IN = ("cnn", "logistic", "mlp", "speedrun", *SEEDS)


def build(name="cnn", input_shape=(28, 28, 1), output_shape=(10,), seed=0, **kwargs):
    return models.build(
        name, input_shape=input_shape, output_shape=output_shape, seed=seed, **kwargs
    )


@pytest.fixture
def own_networks(monkeypatch):
    monkeypatch.setattr(NETWORKS, "_entries", dict(NETWORKS._entries))


def test_built_in_networks():
    assert set(BUILT_IN) <= set(models.names())


@pytest.mark.parametrize("name", BUILT_IN)
def test_finite_float32_logits(name):
    model = build(name)
    images = tf.zeros([3, 28, 28, 1])
    noise = models.StatelessRNG(0, tf.constant(0, tf.int64))
    for call in (
        None,
        models.ForwardContext(training=True, noise=noise),
        models.ForwardContext(training=True, noise=noise, dtype=tf.bfloat16),
        models.ForwardContext(dtype=tf.float16),
    ):
        logits = model(images, call)
        assert logits.shape == (3, 10)
        assert logits.dtype == tf.float32
        assert np.isfinite(logits).all()
    assert model.input_shape == (28, 28, 1)
    assert model.output_shapes[-1] == (10,)
    assert model.name == name


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("logistic", 7_850),
        ("mlp", 669_706),
        ("speedrun", 33_722),  # 272 + 4,640 + 18,432 without a bias + 128 + 10,250
        ("seed_000", 61_482),
        ("seed_001", 93_322),
        ("seed_002", 1_815),
        ("seed_003", 34_826),
        ("seed_004", 34_826),
    ],
)
def test_parameter_counts(name, parameters):
    assert sum(int(tf.size(v)) for v in build(name).trainable_variables) == parameters


def keras_twin(name):
    def convolution(filters):
        return keras.layers.Conv2D(filters, 3, activation="relu")

    def dense(units, activation=None):
        return keras.layers.Dense(units, activation=activation)

    pool, flatten, dropout = keras.layers.MaxPooling2D, keras.layers.Flatten, keras.layers.Dropout
    head = {
        "seed_000": [convolution(32), pool(), flatten(), dense(64, "relu")],
        "seed_001": [convolution(64), pool(), convolution(64), flatten(), dense(64, "relu")],
        "seed_002": [convolution(5), pool(), flatten()],
        "seed_003": [convolution(64), pool(), flatten(), dropout(0.5)],
        "seed_004": [convolution(64), pool(), flatten(), dropout(0.25)],
    }[name]
    first = convolution(10 if name == "seed_002" else 32)
    return keras.Sequential([keras.Input((28, 28, 1)), first, pool(), *head, dense(10)])


@pytest.mark.parametrize("name", SEEDS)
def test_seed_matches_keras(name):
    model, twin = build(name, seed=4), keras_twin(name)
    holders = [layer for layer in model.layers if layer.variables]
    twin.set_weights([v.numpy() for layer in holders for v in (layer.kernel, layer.bias)])
    images = np.random.default_rng(0).random([5, 28, 28, 1], np.float32)
    np.testing.assert_allclose(model(tf.constant(images)), twin(images), rtol=1e-4, atol=1e-5)
    rates = [layer.rate for layer in model.layers if isinstance(layer, models.Dropout)]
    assert rates == [layer.rate for layer in twin.layers if isinstance(layer, keras.layers.Dropout)]


@pytest.mark.parametrize("input_shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (50, 34, 4)])
def test_default_network_image_sizes(input_shape):
    model = build("cnn", input_shape, output_shape=(7,))
    assert model(tf.zeros([2, *input_shape])).shape == (2, 7)


@pytest.mark.parametrize("input_shape", [(16, 16, 1), (28, 28, 1), (32, 32, 3), (50, 34, 4)])
def test_speedrun_image_sizes(input_shape):
    model = build("speedrun", input_shape, output_shape=(7,))
    assert model(tf.zeros([2, *input_shape])).shape == (2, 7)
    with pytest.raises(ValueError, match=r"3x3x64 \(layer 2\).*3x3, got 2x3.*--model=mlp"):
        build("speedrun", (15, 16, 1))


def test_hidden_widths():
    shapes = [v.shape for v in build("mlp", hidden=[20, 30, 40]).trainable_variables]
    assert shapes[1::2] == [(784, 20), (20, 30), (30, 40), (40, 10)]


def test_weights_depend_on_seed():
    def kernels(seed):
        return [v.numpy() for v in build(seed=seed).trainable_variables if "kernel" in v.name]

    first = kernels(1)
    tf.random.set_seed(99)
    for one, again, other in zip(first, kernels(1), kernels(2), strict=True):
        np.testing.assert_array_equal(one, again)
        assert np.mean(one == other) < 0.01


def test_layers_have_different_weights():
    _, one, _, two, *_ = build("mlp", hidden=[784, 784]).trainable_variables
    assert np.mean(one.numpy() == two.numpy()) < 0.01


def test_unknown_network():
    with pytest.raises(ValueError) as error:
        build("cn")
    known = ", ".join(models.names())
    assert str(error.value) == f"unknown model 'cn'; did you mean 'cnn'? known: {known}"
    with pytest.raises(ValueError, match="unknown model 'qqqq'; known: logistic,"):
        build("qqqq")


def test_refuses_small_images():
    with pytest.raises(ValueError, match=r"3x3x64 relu \(layer 2\).*3x3, got 2x2.*--model=mlp"):
        build("seed_003", (7, 7, 1))
    with pytest.raises(ValueError, match=r"max pool 2x2 \(layer 3\).*2x2, got 1x1.*--image_size"):
        build("seed_003", (8, 8, 1))
    build("mlp", (1, 1, 1))


def test_refuses_bad_image_shape():
    for shape in ((28, 28), ()):
        with pytest.raises(ValueError, match="height, width, channels"):
            build("cnn", shape)
    with pytest.raises(ValueError, match="needs an image of at least 1x1, got 0x28"):
        build("cnn", (0, 28, 1))
    assert build("logistic", (28, 28)).output_shapes == [(784,), (10,)]


def test_register_network(own_networks):
    @models.register("linear")
    def linear(outputs):
        return [models.Flatten(), models.BatchNorm(), models.Dense(outputs.shape[0])]

    assert "linear" in models.names()
    assert build("linear", output_shape=(3,))(tf.zeros([2, 28, 28, 1])).shape == (2, 3)


def test_refuses_bad_network_name(own_networks):
    with pytest.raises(ValueError, match="'cnn' is registered already"):
        models.register("cnn")
    with pytest.raises(ValueError, match="identifier, got 'my-net'"):
        models.register("my-net")


def test_refuses_wrong_logits(own_networks):
    models.register("short")(lambda: [models.Flatten(), models.Dense(9)])
    with pytest.raises(
        ValueError, match=r"short has outputs float32 \[9\], and the task needs float32 \[10\]"
    ):
        build("short")
    models.register("open_ended")(lambda: [models.Convolution(1), models.MaxPool()])
    with pytest.raises(ValueError, match=r"open_ended has outputs float32 \[13, 13, 1\]"):
        build("open_ended")
