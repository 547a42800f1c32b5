import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.models.sequential import pooled
from tapeline.models import (
    Activation,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    ForwardContext,
    GlobalAveragePool,
    Initializer,
    MaxPool,
    Sequential,
    StatelessRNG,
    build,
)

EVALUATION = ForwardContext()


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def made(layer, input_shape, index=0):
    layer.output_shape = layer.build(input_shape, Initializer(0, index, "layer"))
    for variable in layer.trainable_variables:
        variable.assign(normal(*variable.shape, seed=5))
    return layer


def training(step=0, row=0, **kwargs):
    return ForwardContext(
        training=True,
        noise=StatelessRNG(3, tf.constant(step, tf.int64), tf.constant(row, tf.int64)),
        **kwargs,
    )


# Convolution, pooling, dense


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_convolution_matches_keras(padding, stride, activation):
    x = normal(2, 11, 8, 3)
    layer = made(Convolution(5, 3, stride, padding, activation), (11, 8, 3))
    twin = keras.layers.Conv2D(5, 3, stride, padding.lower(), activation=activation)
    twin.build(x.shape)
    twin.set_weights([layer.kernel.numpy(), layer.bias.numpy()])
    y = layer(x, EVALUATION)
    np.testing.assert_allclose(y, twin(x), rtol=1e-4, atol=1e-5)
    assert y.shape[1:] == layer.output_shape


@pytest.mark.parametrize("size", [1, 2, 3])
def test_max_pool_matches_keras(size):
    x = normal(2, 7, 6, 3)
    layer = made(MaxPool(size), (7, 6, 3))
    y = layer(x, EVALUATION)
    np.testing.assert_array_equal(y, keras.layers.MaxPooling2D(size)(x))
    assert y.shape[1:] == layer.output_shape


@pytest.mark.parametrize(("size", "stride"), [(2, 1), (3, 2), (2, 3), (1, 2)])
@pytest.mark.parametrize("padding", ["VALID", "SAME", 1])
def test_max_pool_padding_and_stride(size, stride, padding):
    x = -1 - np.abs(normal(2, 11, 8, 3))  # zeros from padding would be the maximum
    if padding == 1 and size == 1:
        with pytest.raises(ValueError, match="of size 1 must be one of VALID, SAME, 0, got 1"):
            MaxPool(size, stride, padding)
        return
    layer = made(MaxPool(size, stride, padding), (11, 8, 3))
    y = layer(x, EVALUATION)
    if padding == 1:
        x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    twin = keras.layers.MaxPooling2D(size, stride, "same" if padding == "SAME" else "valid")
    np.testing.assert_array_equal(y, twin(x))
    assert y.shape[1:] == layer.output_shape


@pytest.mark.parametrize("activation", [None, "relu"])
def test_dense(activation):
    x = normal(4, 6)
    layer = made(Dense(3, activation), (6,))
    expected = x.numpy() @ layer.kernel.numpy() + layer.bias.numpy()
    expected = np.maximum(expected, 0) if activation else expected
    np.testing.assert_allclose(layer(x, EVALUATION), expected, rtol=1e-5, atol=1e-6)


def test_flatten_average_activation():
    x = normal(2, 3, 4, 5)
    flat = made(Flatten(), (3, 4, 5))(x, EVALUATION)
    np.testing.assert_array_equal(flat, x.numpy().reshape(2, 60))
    mean = made(GlobalAveragePool(), (3, 4, 5))(x, EVALUATION)
    np.testing.assert_allclose(mean, x.numpy().mean((1, 2)), rtol=1e-5, atol=1e-6)
    relu = made(Activation("relu"), (3, 4, 5))(x, EVALUATION)
    np.testing.assert_array_equal(relu, np.maximum(x, 0))


def test_initial_weights():
    layer = Convolution(64)
    layer.build((9, 9, 32), Initializer(0, 0, "convolution"))
    limit = np.sqrt(6 / (9 * 32 + 9 * 64))
    kernel = layer.kernel.numpy()
    assert np.abs(kernel).max() <= limit
    assert np.abs(kernel).max() > 0.99 * limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.02)
    np.testing.assert_array_equal(layer.bias, np.zeros(64))


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (
            lambda: Convolution(0),
            "filters of a convolution must be an integer of at least 1, got 0",
        ),
        (lambda: Convolution(3, padding="same"), "padding must be one of VALID, SAME, got 'same'"),
        (lambda: Dense(3, "rleu"), "must be one of None, elu, .*, got 'rleu'; did you mean 'relu'"),
        (lambda: Activation(None), "activation must be one of elu, .*, tanh, got None$"),
        (lambda: MaxPool(0), "size of a max pool must be"),
        (lambda: MaxPool(2, 0), "stride of a max pool must be"),
        (lambda: MaxPool(3, 2, 2), "padding of a max pool of size 3 must be one of VALID, SAME, 0"),
        (lambda: MaxPool(3, 2, "same"), "must be one of VALID, SAME, 0, 1, got 'same'"),
        (lambda: Dropout(1.0), r"rate of a dropout must be in \[0, 1\), got 1.0"),
        (lambda: Dropout(0.99999), r"dropout must be at most 1 - 2\^-15, got 0.99999"),
        (lambda: BatchNorm(momentum=2), r"momentum of a batch norm must be in \[0, 1\], got 2"),
    ],
)
def test_refuses_impossible_layer(declare, message):
    with pytest.raises(ValueError, match=message):
        declare()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Flatten(), MaxPool()], r"max pool 2x2 \(layer 1\) takes images .* got shape \(64,\)"),
        ([Flatten(), *[Dense(4)] * 2], "a layer is listed twice"),
    ],
)
def test_refuses_misfit_layers(layers, message):
    with pytest.raises(ValueError, match=message):
        Sequential("misfit", layers, (8, 8, 1), seed=0)


# Dropout


def test_dropout_rate_and_expectation():
    layer = made(Dropout(0.3), (400,))
    y = layer(tf.ones([500, 400]), training()).numpy()
    # 200,000 draws: the share of zeros has a standard deviation of 0.001.
    assert abs(np.mean(y == 0) - 0.3) < 0.005
    assert abs(y.mean() - 1) < 0.01
    # 0.3 to the nearest 65,536th.
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - 19661 / 65536)], rtol=1e-6)


def test_dropout_off():
    """Dropout is off in evaluation and at rate 0."""
    x = normal(4, 8)
    assert made(Dropout(0.5), (8,))(x, EVALUATION) is x
    assert made(Dropout(0.0), (8,))(x, ForwardContext(training=True)) is x


def test_dropout_independent_of_replicas():
    layer = made(Dropout(0.5), (3, 3, 2))
    x = tf.ones([12, 3, 3, 2])
    whole = layer(x, training())
    halves = [layer(x[row : row + 6], training(row=row)) for row in (0, 6)]
    np.testing.assert_array_equal(whole, tf.concat(halves, 0))


def test_dropout_differs_by_step_and_layer():
    x = tf.ones([20, 50])
    first, second = made(Dropout(0.5), (50,), index=1), made(Dropout(0.5), (50,), index=2)
    patterns = [first(x, training()), first(x, training(step=1)), second(x, training())]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        # 1,000 pairs of coins agree half the time, with a standard deviation of 0.016.
        assert abs(np.mean(patterns[one].numpy() == patterns[other].numpy()) - 0.5) < 0.08


def test_dropout_gradient():
    x = tf.ones([6, 10])
    layer = made(Dropout(0.4), (10,))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training())
    np.testing.assert_array_equal(tape.gradient(y, x), y)


def test_refuses_dropout_without_noise():
    with pytest.raises(ValueError, match=r"needs ForwardContext\.noise, which is None"):
        made(Dropout(0.5), (8,))(normal(4, 8), ForwardContext(training=True))


# Batch norm


def norm(channels=3, **kwargs):
    layer = made(BatchNorm(**kwargs), (channels,))
    layer.moving_mean.assign(normal(channels, seed=6))
    layer.moving_variance.assign(tf.square(normal(channels, seed=7)) + 0.5)
    return layer


@pytest.mark.parametrize("shape", [(16, 3), (8, 5, 4, 3)])
def test_batch_norm_matches_keras(shape):
    x = normal(*shape, seed=1) * 3 + 1
    layer, twin = norm(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    twin.build(shape)
    variables = (layer.scale, layer.offset, layer.moving_mean, layer.moving_variance)
    twin.set_weights([variable.numpy() for variable in variables])
    np.testing.assert_allclose(layer(x, EVALUATION), twin(x), rtol=1e-4, atol=1e-5)
    context = training()
    np.testing.assert_allclose(layer(x, context), twin(x, training=True), rtol=1e-4, atol=1e-4)
    for (variable, value, *_), expected in zip(
        context.updates, twin.get_weights()[2:], strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
        variable.assign(value)
    np.testing.assert_allclose(layer(x, EVALUATION), twin(x), rtol=1e-4, atol=1e-4)


def test_batch_norm_proposes_updates():
    """Batch norm proposes moving averages in training only, and assigns no variable."""
    layer, context = norm(), training()
    before = [variable.numpy() for variable in layer.variables]
    layer(normal(8, 3), context)
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert all(
        v is w for (v, *_), w in zip(context.updates, layer.non_trainable_variables, strict=True)
    )
    evaluation = ForwardContext()
    layer(normal(8, 3), evaluation)
    assert evaluation.updates == []


def forward_and_gradients(layer, x, weight, context):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, context)
        loss = tf.reduce_sum(tf.square(y) * weight)
    return y, tape.gradient(loss, [x, *layer.trainable_variables])


def test_batch_norm_ignores_padding():
    layer = norm()
    x, weight = normal(6, 4, 4, 3), normal(6, 4, 4, 3, seed=9)
    plain = training()
    expected, expected_gradients = forward_and_gradients(layer, x, weight, plain)

    padding = tf.fill([3, 4, 4, 3], 1000.0)
    masked = training(mask=tf.constant([1.0] * 6 + [0.0] * 3))
    y, gradients = forward_and_gradients(
        layer, tf.concat([x, padding], 0), tf.pad(weight, [[0, 3], [0, 0], [0, 0], [0, 0]]), masked
    )
    np.testing.assert_allclose(y[:6], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradients[0][6:], tf.zeros_like(padding))
    gradients[0] = gradients[0][:6]
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-3, atol=1e-4)
    for (_, value, *_), (_, reference, *_) in zip(masked.updates, plain.updates, strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-5)


def test_batch_norm_across_replicas():
    layer = norm()
    x, weight = normal(8, 4, 3), normal(8, 4, 3, seed=9)
    mask = tf.constant([1.0] * 7 + [0.0])
    whole = training(mask=mask)
    expected, expected_gradients = forward_and_gradients(layer, x, weight, whole)

    parts = [slice(0, 5), slice(5, 8)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        sums = []

        def record(tensors):
            sums.append(tensors)
            return tensors

        for part in parts:
            layer(x[part], training(mask=mask[part], all_reduce=record))
        total = [sum(pair) for pair in zip(*sums, strict=True)]
        passes = [training(mask=mask[part], all_reduce=lambda _: total) for part in parts]
        y = tf.concat(
            [layer(x[part], context) for part, context in zip(parts, passes, strict=True)], axis=0
        )
        loss = tf.reduce_sum(tf.square(y) * weight)
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])

    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-3, atol=1e-4)
    for context in passes:
        for (_, value, *_), (_, reference, *_) in zip(context.updates, whole.updates, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5)


def test_batch_norm_of_padding_only():
    """In a batch of only padding, the moving averages have weight 0 and the outputs are finite."""
    layer, context = norm(), training(mask=tf.zeros([4]))
    assert np.isfinite(layer(normal(4, 3), context)).all()
    assert [float(weight) for _, _, weight, _ in context.updates] == [0.0, 0.0]


def test_batch_norm_dtypes():
    """Batch norm computes in float32 and returns the compute dtype."""
    layer = norm()
    x = tf.cast(normal(64, 3) * 300, tf.float16)  # Squares of these overflow float16.
    y = layer(x, training(dtype=tf.float16))
    assert y.dtype == tf.float16
    expected = layer(tf.cast(x, tf.float32), training())
    np.testing.assert_allclose(tf.cast(y, tf.float32), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("size", "groups", "padding"), [(2, 1, "VALID"), (4, 1, 1), (3, 3, 2)])
def test_convolution_of_patches(size, groups, padding):
    """A stride of the size of the kernel: values and gradients of TensorFlow's convolution."""
    x = normal(3, 14, 11, 6)
    layer = made(Convolution(9, size, size, padding, groups=groups), (14, 11, 6))
    border = [0, 0] if padding == "VALID" else [padding] * 2
    around = [[0, 0], border, border, [0, 0]]

    def reference(x, _):
        parts = zip(tf.split(x, groups, -1), tf.split(layer.kernel, groups, -1), strict=True)
        y = tf.concat([tf.nn.conv2d(each, kernel, size, around) for each, kernel in parts], -1)
        return tf.nn.bias_add(y, layer.bias)

    results = []
    for function in (layer, reference):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, EVALUATION)
            loss = tf.reduce_sum(y * normal(*y.shape, seed=2))
        results.append((y, *tape.gradient(loss, [x, layer.kernel])))
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


# Sequential


def test_pool_before_bias_and_relu():
    model = Sequential(
        "pooled", [Convolution(8, activation="relu"), MaxPool(), Flatten()], (12, 12, 3), seed=1
    )
    convolution, pool, flatten = model.layers
    convolution.bias.assign(normal(8) * 0.1)
    x, weight = normal(16, 12, 12, 3), normal(16, 200, seed=2)

    def straightforward(x, context):
        return flatten(pool(convolution(x, context), context), context)

    results = []
    for function in (model, straightforward):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, EVALUATION)
            loss = tf.reduce_sum(y * weight)
        results.append((y, tape.gradient(loss, [x, convolution.kernel, convolution.bias])))
    (y, gradients), (expected, expected_gradients) = results
    np.testing.assert_array_equal(y, expected)
    assert np.mean(y.numpy() == 0) > 0.01, "the relu was not put to the test"
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        tolerance = 1e-6 * np.abs(reference).max()
        np.testing.assert_allclose(gradient, reference, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("pool", [lambda: MaxPool(), lambda: MaxPool(3, 2, 1)])
def test_pool_before_activation(activation, pool):
    """Values and gradients are those of the layers in turn, ties included."""
    layers = [Activation(activation), pool(), Flatten()]
    model = Sequential("pooled", layers, (12, 12, 3), seed=1)
    assert [stage for stage, *_ in pooled(layers)] == [0, 2]
    x = tf.round(normal(16, 12, 12, 3) * 4)  # many ties, also at 0, and some above 6

    def in_turn(x, context):
        for layer in layers:
            x = layer(x, context)
        return x

    results = []
    for function in (model, in_turn):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, training())
            loss = tf.reduce_sum(y * normal(*y.shape, seed=2))
        results.append((y, tape.gradient(loss, x)))
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_pool_moved_after_convolution_only():
    """A max pool is paired only with a convolution right before it, and no layer is lost."""
    layers = [Convolution(4), MaxPool(), MaxPool(), Convolution(4), Dropout(0.1), MaxPool()]
    assert pooled(layers) == [
        (0, layers[0], layers[1]),
        (2, layers[2], None),
        (3, layers[3], None),
        (4, layers[4], None),
        (5, layers[5], None),
    ]


def test_inputs_as_they_are():
    """A network does not scale inputs; it casts floats, but not integers, to the compute dtype."""
    model = Sequential("flat", [Flatten()], (2, 2, 1), seed=0)
    inputs = np.float32([[0, 51, 102, 255]]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(model(tf.constant(inputs)), inputs.reshape(1, 4))
    ids = np.array([[0, 257, 70000, 255]], np.int32).reshape(1, 2, 2, 1)
    half = ForwardContext(dtype=tf.bfloat16)
    np.testing.assert_array_equal(model(tf.constant(ids), half), ids.reshape(1, 4))


def test_refuses_other_image_shape():
    model = build("logistic", input_shape=(8, 8, 1), output_shape=(2,), seed=0)
    with pytest.raises(ValueError, match=r"built for inputs of shape \(8, 8, 1\), got \(8, 9, 1\)"):
        model(tf.zeros([2, 8, 9, 1]))


def test_variable_order_and_names():
    hidden = range(21, 34)
    model = build("mlp", input_shape=(2, 2, 1), output_shape=(3,), seed=0, hidden=hidden)
    names = [variable.name for variable in model.trainable_variables]
    assert names == [
        f"{index}_dense/{variable}:0" for index in range(1, 15) for variable in ("bias", "kernel")
    ]
    assert [v.shape[0] for v in model.trainable_variables[::2]] == [*hidden, 3]
    again = build("mlp", input_shape=(2, 2, 1), output_shape=(3,), seed=0, hidden=hidden)
    assert names == [variable.name for variable in again.trainable_variables]


def test_float32_weights_and_gradients():
    model = build("seed_002", input_shape=(28, 28, 1), output_shape=(10,), seed=0)
    images = tf.constant(np.random.default_rng(0).random([8, 28, 28, 1], np.float32))
    results = {}
    for dtype in (tf.float32, tf.bfloat16, tf.float16):
        with tf.GradientTape() as tape:
            logits = model(images, training(dtype=dtype))
            loss = tf.reduce_mean(tf.square(logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(gradient.dtype == tf.float32 for gradient in gradients)
        results[dtype] = logits
    for dtype in (tf.bfloat16, tf.float16):
        np.testing.assert_allclose(results[dtype], results[tf.float32], atol=0.02)


def test_checkpoint_round_trip(tmp_path):
    layers = [Flatten(), Dense(5, "relu"), BatchNorm(), Dense(2)]
    model = Sequential("saved", layers, (3, 3, 1), seed=0)
    for index, variable in enumerate(model.variables):
        variable.assign(normal(*variable.shape, seed=index))
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    layers = [Flatten(), Dense(5, "relu"), BatchNorm(), Dense(2)]
    other = Sequential("saved", layers, (3, 3, 1), seed=1)
    tf.train.Checkpoint(model=other).read(path).assert_consumed()
    for saved, restored in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(saved, restored)


def test_forward_context_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVALUATION.training = True
    assert ForwardContext().updates is not ForwardContext().updates
