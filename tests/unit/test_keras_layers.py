"""The engine's replacements of Keras's dropout, noise and batch norm, compared with Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tapeline import keras as adapted
from tapeline.models import ForwardContext, StatelessRNG

RANDOM = {
    "dropout": keras.layers.Dropout(0.3),
    "noise_shape": keras.layers.Dropout(0.5, noise_shape=(None, 1, None)),
    "spatial": keras.layers.SpatialDropout1D(0.5),
    "gaussian_noise": keras.layers.GaussianNoise(0.4),
    "gaussian_dropout": keras.layers.GaussianDropout(0.2),
    "alpha_dropout": keras.layers.AlphaDropout(0.3),
}


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def training(step=0, row=0, **kwargs):
    step, row = tf.constant(step, tf.int64), tf.constant(row, tf.int64)
    return ForwardContext(training=True, noise=StatelessRNG(3, step, row), **kwargs)


def drawn(model, x):
    """Returns the kinds of random numbers that a call in training draws."""
    context = training()
    model(x, context)
    return context.noise.drawn


def made(layer, *shape):
    """Returns the adapter of a new layer with the same configuration."""
    layer = type(layer).from_config(layer.get_config())
    return adapted(keras.Sequential([keras.Input(shape), layer]))


# Dropout and noise


@pytest.mark.parametrize("name", RANDOM)
def test_noise_independent_of_replicas(name):
    model = made(RANDOM[name], 6, 5)
    x = normal(12, 6, 5)
    assert drawn(model, x) == {"per_example"}
    whole = model(x, training())
    parts = [model(x[row : row + 4], training(row=row)) for row in (0, 4, 8)]
    np.testing.assert_allclose(whole, tf.concat(parts, 0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(whole, model(x, training(step=1)))
    np.testing.assert_array_equal(model(x), x)


@pytest.mark.parametrize("name", RANDOM)
def test_noise_has_moments_of_keras(name):
    x = tf.ones([2000, 6, 5]) * 0.7
    ours = made(RANDOM[name], 6, 5)(x, training()).numpy()
    theirs = RANDOM[name](x, training=True).numpy()
    # The deviation of a mean of 10,000 independent numbers is below 0.02 for each of these.
    assert abs(ours.mean() - theirs.mean()) < 0.05
    assert abs(ours.std() - theirs.std()) < 0.05
    if "noise" not in name and name != "gaussian_dropout":
        assert len(np.unique(ours.round(4))) == len(np.unique(theirs.round(4))) == 2


def test_spatial_dropout_drops_channels():
    for name in ("spatial", "noise_shape"):
        y = made(RANDOM[name], 6, 5)(tf.ones([40, 6, 5]), training()).numpy()
        np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
        assert 0.3 < (y == 0).mean() < 0.7


def test_each_layer_and_call_draws_its_own():
    shared = keras.layers.Dropout(0.5)
    i = keras.Input((50,))
    model = adapted(keras.Model(i, [shared(i), shared(i), keras.layers.Dropout(0.5)(i)]))
    dropped = [y.numpy() == 0 for y in model(tf.ones([20, 50]), training())]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        # 1,000 pairs of coins agree half the time, with a standard deviation of 0.016.
        assert abs(np.mean(dropped[one] == dropped[other]) - 0.5) < 0.08


def test_dropout_inside_attention():
    i = keras.Input((6, 4))
    attention = keras.layers.MultiHeadAttention(2, 3, dropout=0.5)
    model = adapted(keras.Model(i, attention(i, i)))
    x = normal(8, 6, 4)
    assert drawn(model, x) == {"per_example"}
    halves = [model(x[row : row + 4], training(row=row)) for row in (0, 4)]
    np.testing.assert_allclose(model(x, training()), tf.concat(halves, 0), rtol=1e-4, atol=1e-5)


def test_dropout_of_repeated_rows():
    """Dropout on an axis of examples times positions depends on the row of the example."""
    i = keras.Input((6, 4))
    y = keras.layers.Dropout(0.5)(keras.ops.reshape(i, (-1, 4)))
    model = adapted(keras.Model(i, keras.ops.reshape(y, (-1, 6, 4))))
    x = normal(8, 6, 4)
    assert drawn(model, x) == {"per_example"}
    halves = [model(x[row : row + 4], training(row=row)) for row in (0, 4)]
    np.testing.assert_array_equal(model(x, training()), tf.concat(halves, 0))


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LSTM(3, dropout=0.5),
        keras.layers.Dropout(0.5, noise_shape=(1, 6, 5)),
        keras.layers.Dropout(1 - 1e-6),
        keras.layers.RandomTranslation(0.5, 0.5),
    ],
    ids=lambda layer: layer.name,
)
def test_what_draws_for_a_micro_batch(layer):
    """Layers that keep Keras's seed generators get seeds from the run, the step and the row."""
    shape = (8, 6, 5) if isinstance(layer, keras.layers.RandomTranslation) else (6, 5)
    model = made(layer, *shape)
    x = normal(8, *shape)
    assert "per_microbatch" in drawn(model, x)
    y = model(x, training(step=1, row=4))
    np.testing.assert_array_equal(y, model(x, training(step=1, row=4)))
    if not (isinstance(layer, keras.layers.Dropout) and layer.rate > 0.9):
        for other in (training(step=2, row=4), training(step=1)):
            assert not np.allclose(y, model(x, other))
    assert not [v for v in model.variables if "seed" in v.name]
    np.testing.assert_array_equal(model(x), model(x))


def test_subclass_with_own_call():
    class Doubled(keras.layers.Dropout):
        def call(self, inputs, training=False):
            return 2 * super().call(inputs, training=training)

    model = adapted(keras.Sequential([keras.Input((5,)), Doubled(0.5)]))
    assert drawn(model, tf.ones([20, 5])) == {"per_microbatch"}
    assert set(np.unique(model(tf.ones([20, 5]), training()))) == {0, 4}


def test_global_generator_is_seeded():
    class Noisy(keras.layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(keras.ops.shape(inputs))

    model = adapted(keras.Sequential([keras.Input((5,)), Noisy()]))
    x = tf.zeros([4, 5])
    assert drawn(model, x) == {"per_microbatch"}
    np.testing.assert_array_equal(model(x, training()), model(x, training()))
    assert not np.allclose(model(x, training()), model(x, training(step=1)))
    np.testing.assert_array_equal(model(x), model(x))


# Batch norm


def norm(shape, **kwargs):
    """Returns a Keras batch norm with random variables, and its adapter."""
    twin = keras.layers.BatchNormalization(**kwargs)
    model = keras.Sequential([keras.Input(shape), twin])
    for index, variable in enumerate(twin.weights):
        variable.assign(np.abs(normal(*variable.shape, seed=index)) + 0.1)
    return twin, adapted(model)


@pytest.mark.parametrize(
    ("shape", "kwargs"),
    [
        ((3,), {"momentum": 0.9}),
        ((5, 4, 3), {"epsilon": 0.1}),
        ((5, 4, 3), {"axis": 1}),
        ((5, 4, 3), {"center": False}),
        ((5, 4, 3), {"scale": False, "axis": 2}),
        ((6, 3), {"center": False, "scale": False}),
        ((5, 4, 3), {"epsilon": 1e-6}),
    ],
)
def test_batch_norm_matches_keras(shape, kwargs):
    twin, model = norm(shape, **kwargs)
    x = normal(9, *shape, seed=1) * 3 + 1
    np.testing.assert_allclose(model(x), twin(x), rtol=1e-4, atol=1e-5)
    context = training()
    np.testing.assert_allclose(model(x, context), twin(x, training=True), rtol=1e-4, atol=1e-4)
    names = [variable.name for variable, *_ in context.updates]
    assert names == ["00_batch_normalization/" + n for n in ("moving_mean:0", "moving_variance:0")]
    theirs = twin.moving_mean, twin.moving_variance
    for (_, value, *_), expected in zip(context.updates, theirs, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    assert not context.noise.drawn


@pytest.mark.parametrize("shape", [(3,), (4, 4, 3)])
def test_batch_norm_ignores_padding(shape):
    _, model = norm(shape)
    x = normal(6, *shape)
    plain = training()
    expected = model(x, plain)
    masked = training(mask=tf.constant([1.0] * 6 + [0.0] * 3))
    y = model(tf.concat([x, tf.fill([3, *shape], 1000.0)], 0), masked)
    np.testing.assert_allclose(y[:6], expected, rtol=1e-5, atol=1e-6)
    for (_, value, weight, _), (_, reference, *_) in zip(
        masked.updates, plain.updates, strict=True
    ):
        np.testing.assert_allclose(value, reference, rtol=1e-5)
        assert weight == 6 * np.prod(shape[:-1])


@pytest.mark.parametrize("case", ["last", "axis", "mask"])
def test_batch_norm_far_from_zero(case):
    """The variance of a first batch keeps its digits for a large mean, on any axis, with a mask.

    The mean of the batch is 10,000 and its deviation 1, and the moving mean is 0.
    """
    x = np.random.default_rng(0).normal(10_000, 1, (64, 6, 4)).astype(np.float32)
    wide = x.astype(np.float64)
    layer = keras.layers.BatchNormalization(axis=1 if case == "axis" else -1, epsilon=1e-6)
    i, mask = keras.Input((6, 4)), keras.Input((6,), dtype="bool")
    valid = np.arange(6) < 1 + np.arange(64)[:, None] % 6 if case == "mask" else np.ones((64, 6))
    axes = (0, 2) if case == "axis" else (0, 1)
    if case == "mask":
        model, given = adapted(keras.Model([i, mask], layer(i, mask=mask))), [x, valid]
        mean, variance = wide[valid].mean(0), wide[valid].var(0)
    else:
        model, given = adapted(keras.Model(i, layer(i))), x
        mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    for context in (training(), training(all_reduce=lambda tensors: [2 * t for t in tensors])):
        with tf.GradientTape() as tape:
            given = tf.nest.map_structure(tf.constant, given)
            tape.watch(given)
            y = model(given, context)
            loss = tf.reduce_sum(tf.square(y) * y)
        expected = (wide - mean) / np.sqrt(variance + 1e-6)
        np.testing.assert_allclose(y[valid > 0], expected[valid > 0], atol=2e-3)
        moved = np.squeeze(variance)
        np.testing.assert_allclose(context.updates[1].value, 0.99 + 0.01 * moved, rtol=1e-4)
        slope = tf.nest.flatten(tape.gradient(loss, given))[0]
        upstream = 3 * expected**2
        if case != "mask":  # the gradient of Ioffe and Szegedy 2015
            means = [np.mean(each, axes, keepdims=True) for each in (upstream, upstream * expected)]
            right = (upstream - means[0] - expected * means[1]) / np.sqrt(variance + 1e-6)
            np.testing.assert_allclose(slope, right, atol=2e-2)


def test_batch_norm_across_replicas():
    _, model = norm((4, 3))
    x = normal(8, 4, 3)
    whole = training()
    expected = model(x, whole)
    sums = []

    def record(tensors):
        sums.append(tensors)
        return tensors

    for part in (x[:5], x[5:]):
        model(part, training(all_reduce=record))
    total = [sum(pair) for pair in zip(*sums, strict=True)]
    passes = [training(all_reduce=lambda _: total) for _ in range(2)]
    y = tf.concat([model(x[:5], passes[0]), model(x[5:], passes[1])], 0)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    for context in passes:
        for (_, value, *_), (_, reference, *_) in zip(context.updates, whole.updates, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5)


def test_batch_norm_of_masked_positions():
    """Positions that an embedding masks do not count, as in Keras."""
    i = keras.Input((6,), dtype="int32")
    embedding = keras.layers.Embedding(9, 4, mask_zero=True)
    twin = keras.layers.BatchNormalization(momentum=0.5)
    model = adapted(keras.Model(i, twin(embedding(i))))
    ids = tf.constant(np.random.default_rng(0).integers(0, 9, (7, 6), np.int32))
    context = training()
    y = model(ids, context)
    expected = twin(embedding(ids), training=True)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    for (_, value, *_), theirs in zip(context.updates, twin.non_trainable_weights, strict=True):
        np.testing.assert_allclose(value, theirs, rtol=1e-4, atol=1e-6)


def test_masked_positions_may_be_nan():
    """What a mask excludes has no effect on the statistics, whatever it is, as in Keras."""
    i, mask = keras.Input((6, 4)), keras.Input((6,), dtype="bool")
    twin = keras.layers.BatchNormalization(momentum=0.5)
    model = adapted(keras.Model([i, mask], twin(i, mask=mask)))
    x, valid = normal(7, 6, 4), tf.range(6) < tf.reshape(tf.range(1, 8), [7, 1])
    broken = tf.where(valid[..., None], x, np.nan)
    contexts = training(), training()
    y, of_broken = (model([each, valid], c) for each, c in zip((x, broken), contexts, strict=True))
    np.testing.assert_array_equal(y[valid], of_broken[valid])
    for (_, one, *_), (_, other, *_) in zip(*(c.updates for c in contexts), strict=True):
        np.testing.assert_array_equal(one, other)


def test_mask_of_another_axis_is_refused():
    """With a mask, channels that are not the last axis would have different counts."""
    i = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(i)
    model = keras.Model(i, keras.layers.BatchNormalization(axis=1)(embedded))
    with pytest.raises(ValueError, match="gets a mask and normalizes axis 1: with a mask, only"):
        adapted(model)


def test_shared_batch_norm_moves_twice():
    twin = keras.layers.BatchNormalization(momentum=0.5)
    i = keras.Input((3,))
    model = adapted(keras.Model(i, twin(twin(i) * 2 + 1)))
    x, context = normal(8, 3), training()
    model(x, context)
    twin(twin(x, training=True) * 2 + 1, training=True)
    assert len(context.updates) == 2
    for (_, value, *_), theirs in zip(context.updates, twin.non_trainable_weights, strict=True):
        np.testing.assert_allclose(value, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_batch_norm_dtypes(dtype):
    _, model = norm((4, 4, 3))
    x = normal(16, 4, 4, 3) * 100  # Squares of these overflow float16.
    for context in (ForwardContext(dtype=dtype), training(dtype=dtype)):
        y = model(x, context)
        assert y.dtype == tf.float32
        expected = model(x, training() if context.training else None)
        np.testing.assert_allclose(y, expected, rtol=0.02, atol=0.02)
        assert all(value.dtype == tf.float32 for _, value, *_ in context.updates)


def test_refuses_norm_of_another_axis():
    class Transposed(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def build(self, input_shape):
            self.norm.build((input_shape[1], None, input_shape[2]))

        def call(self, inputs):
            return self.norm(keras.ops.transpose(inputs, (1, 0, 2)))

    with pytest.raises(ValueError, match="whose first axis is not that of the examples"):
        adapted(keras.Sequential([keras.Input((6, 4)), Transposed()]))
