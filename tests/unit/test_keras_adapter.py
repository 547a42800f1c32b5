import gc
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapeline
from engine.models.properties import named_variables
from engine.models.seeding import seeded
from tapeline.models import ForwardContext, StatelessRNG
from tests.choices import seldom

SHAPE = (8, 8, 1)
SPEC = tf.TensorSpec(SHAPE)


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def training(step=0, row=0, **kwargs):
    step, row = tf.constant(step, tf.int64), tf.constant(row, tf.int64)
    return ForwardContext(training=True, noise=StatelessRNG(3, step, row), **kwargs)


def layers(**dense):
    return [
        keras.layers.Conv2D(4, 3, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("relu"),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, **dense),
    ]


def sequential(**dense):
    return keras.Sequential([keras.Input(SHAPE), *layers(**dense)])


def functional(**dense):
    x = inputs = keras.Input(SHAPE)
    for layer in layers(**dense):
        x = layer(x)
    return keras.Model(inputs, x)


class Subclassed(keras.Model):
    def __init__(self, **dense):
        super().__init__()
        self.convolution, self.norm, self.relu, self.flat, self.drop, self.dense = layers(**dense)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs, training=False):
        x = self.norm(self.convolution(inputs), training=training)
        x = self.drop(self.flat(self.relu(x)), training=training)
        return self.dense(x) * self.scale


class Nested(keras.Model):
    """A subclassed model that contains a functional one."""

    def __init__(self):
        super().__init__()
        self.inner = functional()

    def call(self, inputs):
        return self.inner(inputs)


def tampered(model):
    """Assigns random values to all weights of a model, as if it were pretrained; returns it."""
    model(tf.zeros([1, *SHAPE]))
    for index, variable in enumerate(model.weights):
        variable.assign(np.abs(normal(*variable.shape, seed=index)) + 0.1)
    return model


# Values


@pytest.mark.parametrize("make", [sequential, functional, Subclassed, Nested])
def test_outputs_and_weights_of_keras(make):
    """The adapter has the pretrained weights, and its training changes no Keras variable."""
    original = tampered(make())
    model = tapeline.keras(original, SPEC)
    x = normal(5, *SHAPE)
    before = [variable.numpy() for variable in original.variables]
    np.testing.assert_allclose(model(x), original(x), rtol=1e-5, atol=1e-5)
    context = training()
    assert not np.allclose(model(x, context), original(x), atol=0.1)
    for variable in model.variables:
        variable.assign(tf.zeros_like(variable))
    assert not model(x).numpy().any()
    for variable, value in zip(original.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert context.noise.drawn == {"per_example"}
    assert len(model.trainable_variables) == len(original.trainable_variables)
    assert model.outputs == tf.TensorSpec([3])


def test_layer_alone():
    layer = keras.layers.Dense(4)
    model = tapeline.keras(layer, tf.TensorSpec([3]))
    x = normal(5, 3)
    np.testing.assert_array_equal(model(x), layer(x))
    assert list(named_variables(model)) == ["weights/00_dense/bias", "weights/00_dense/kernel"]


def test_keras_behaves_as_before_outside():
    """Layers are replaced only during a call of the adapter."""
    original = functional()
    model = tapeline.keras(original)
    x = normal(5, *SHAPE)
    model(x, training(dtype=tf.bfloat16))
    assert not [layer for layer in original.layers if "call" in vars(layer)]
    assert {layer.dtype_policy.name for layer in original.layers} == {"float32"}
    moving = original.layers[2].moving_mean
    original(x, training=True)
    assert moving.numpy().any()
    assert not model.weights["01_batch_normalization"]["moving_mean"].numpy().any()


def test_two_models_of_one_keras_model():
    original = functional()
    one, other = tapeline.keras(original), tapeline.keras(original)
    for variable in one.variables:
        variable.assign_add(tf.ones_like(variable))
    x = normal(5, *SHAPE)
    np.testing.assert_array_equal(other(x), original(x))
    assert not np.allclose(one(x), original(x))


# Names and seeds


@pytest.mark.parametrize("make", [sequential, functional])
def test_names(make):
    """Variables are named by position and class of the layer, not by names that Keras numbers."""
    expected = [
        "weights/00_conv2d/kernel",
        "weights/01_batch_normalization/beta",
        "weights/01_batch_normalization/gamma",
        "weights/01_batch_normalization/moving_mean",
        "weights/01_batch_normalization/moving_variance",
        "weights/05_dense/bias",
        "weights/05_dense/kernel",
    ]
    for _ in range(2):
        named = named_variables(tapeline.keras(make()))
        assert list(named) == expected
        assert ["weights/" + v.name for v in named.values()] == [f"{n}:0" for n in expected]


def test_names_of_subclassed_and_recurrent():
    assert "weights/subclassed/scale" in named_variables(tapeline.keras(Subclassed(), SPEC))
    named = named_variables(tapeline.keras(Nested(), SPEC))
    assert "weights/01_conv2d/kernel" in named and "weights/06_dense/bias" in named
    i = keras.Input((5, 2))
    named = named_variables(tapeline.keras(keras.Model(i, keras.layers.LSTM(3)(i))))
    assert "weights/01_lstm_cell/recurrent_kernel" in named


def test_initial_values_follow_seed():
    def values(seed):
        with seeded(seed):
            return [v.numpy() for v in tapeline.keras(functional()).variables]

    first, other, again = values(1), values(2), values(1)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(first[0], other[0])


def test_seed_of_initializer_stays():
    def kernel(seed):
        with seeded(seed):
            initializer = keras.initializers.GlorotUniform(seed=7)
            return tapeline.keras(functional(kernel_initializer=initializer)).weights["05_dense"]

    np.testing.assert_array_equal(kernel(1)["kernel"], kernel(2)["kernel"])


def test_checkpoint_and_export_hold_own_variables_alone(tmp_path):
    model = tapeline.keras(functional())
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    stored = [name for name, _ in tf.train.list_variables(path) if name.endswith("VARIABLE_VALUE")]
    assert len(stored) == len(model.variables) == 7
    other = tapeline.keras(functional())
    tf.train.Checkpoint(model=other).read(path).assert_consumed()
    x = normal(5, *SHAPE)
    np.testing.assert_array_equal(other(x), model(x))

    exported = tf.Module()
    exported.model = model
    exported.serve = tf.function(model, input_signature=[tf.TensorSpec([None, *SHAPE])])
    tf.saved_model.save(exported, str(tmp_path / "export"))
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(loaded.serve(x), model(x), rtol=1e-6, atol=1e-6)
    assert len(loaded.serve.concrete_functions[0].variables) == 7


# Settings of layers


def test_frozen_layers():
    original = tampered(functional())
    original.layers[1].trainable = original.layers[2].trainable = False
    model = tapeline.keras(original)
    names = [variable.name for variable in model.trainable_variables]
    assert names == ["05_dense/bias:0", "05_dense/kernel:0"]
    none = tf.VariableAggregation.NONE
    assert {v.aggregation for v in model.non_trainable_variables} == {none}
    x, context = normal(6, *SHAPE), training()
    rows = [model(x[row : row + 1], training(row=row)) for row in range(6)]
    np.testing.assert_allclose(model(x, context), tf.concat(rows, 0), rtol=1e-4, atol=1e-4)
    assert context.updates == []


def test_statistics_have_an_aggregation():
    model = tapeline.keras(functional())
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    assert [v.aggregation for v in model.non_trainable_variables] == [first, first]


def test_statistics_of_own_layers():
    class Mean(keras.layers.Layer):
        def build(self, input_shape):
            self.mean = self.add_weight(shape=(3,), trainable=False, name="mean")
            self.constant = self.add_weight(shape=(3,), trainable=False, name="constant")

        def call(self, inputs, training=False):
            if training:
                self.mean.assign(keras.ops.mean(inputs, axis=0))
            return inputs - self.mean - self.constant

    model = tapeline.keras(keras.Sequential([keras.Input((3,)), Mean()]))
    x, context = normal(6, 3), training(mask=tf.constant([1.0] * 4 + [0.0] * 2))
    model(x, context)
    ((variable, value, weight, batch),) = context.updates
    assert batch is None
    assert variable is model.weights["00_mean"]["mean"] and weight == 4
    np.testing.assert_allclose(value, tf.reduce_mean(x, 0), rtol=1e-5, atol=1e-6)
    frozen = model.weights["00_mean"]["constant"]
    assert frozen.aggregation == tf.VariableAggregation.NONE


def test_regularizers_are_penalties():
    original = functional(kernel_regularizer=keras.regularizers.L2(0.1))
    model = tapeline.keras(original)
    for context in (training(dtype=tf.bfloat16), ForwardContext()):
        model(normal(4, *SHAPE), context)
        (penalty,) = context.penalties
        assert penalty.dtype == tf.float32
        np.testing.assert_allclose(penalty, original.losses[0], rtol=1e-6)
    with tf.GradientTape() as tape:
        model(normal(4, *SHAPE), context := training())
        penalty = tf.add_n(context.penalties)
    kernel = model.weights["05_dense"]["kernel"]
    np.testing.assert_allclose(tape.gradient(penalty, kernel), 0.2 * kernel, rtol=1e-6)
    original.trainable = False
    tapeline.keras(original)(normal(4, *SHAPE), context := training())
    assert context.penalties == []


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_precision(dtype):
    seen = {}

    class Seen(keras.layers.Layer):
        def call(self, inputs):
            seen[self.name] = inputs.dtype
            return inputs

    x = inputs = keras.Input(SHAPE)
    for layer in layers()[:-1]:
        x = layer(x)
    x = keras.layers.Dense(3, dtype="float32")(Seen(name="before")(x))
    model = tapeline.keras(keras.Model(inputs, Seen(name="after", dtype="float32")(x)))
    images = normal(16, *SHAPE)
    with tf.GradientTape() as tape:
        y = model(images, ForwardContext(dtype=dtype))
        loss = tf.reduce_mean(y)
    assert seen == {"before": dtype, "after": tf.float32}
    assert y.dtype == tf.float32
    np.testing.assert_allclose(y, model(images), atol=0.05)
    assert seen == {"before": tf.float32, "after": tf.float32}
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient.dtype == tf.float32 for gradient in gradients)


def test_precision_of_loaded_model():
    """The engine's precision applies to a loaded model, whose layers have separate policies."""
    loaded = keras.Model.from_config(functional().get_config())
    model = tapeline.keras(loaded)
    x = normal(16, *SHAPE)
    np.testing.assert_array_equal(model(x), loaded(x))
    assert not np.array_equal(model(x, ForwardContext(dtype=tf.bfloat16)), model(x))


def test_lambda_layers_are_called_as_they_are():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x)])
    model.add(keras.layers.Dense(2))
    x = normal(4, 3)
    np.testing.assert_array_equal(tapeline.keras(model)(x), model(x))


# Inputs and outputs


def test_nests():
    image, ids = keras.Input((4,), name="image"), keras.Input((), dtype="int32", name="ids")
    embedded = keras.layers.Embedding(5, 4)(ids)
    x = keras.layers.Dense(3)(keras.layers.Concatenate()([image, embedded]))
    x = {"class": x, "pair": [keras.layers.Dense(1)(x), keras.layers.Softmax()(x)]}
    original = keras.Model({"image": image, "ids": ids}, x)
    model = tapeline.keras(original)
    batch = {"image": normal(6, 4), "ids": tf.constant([0, 1, 2, 3, 4, 4])}
    ours, theirs = model(batch, training()), original(batch)
    tf.nest.map_structure(np.testing.assert_array_equal, ours, theirs)
    assert model.outputs["pair"][0] == tf.TensorSpec([1])
    model.create_variables({"image": tf.TensorSpec([4]), "ids": tf.TensorSpec([], tf.int32)})
    with pytest.raises(ValueError, match=r"the Keras model Functional: Input .*incompatible"):
        model.create_variables({"image": tf.TensorSpec([5]), "ids": tf.TensorSpec([], tf.int32)})


def test_inputs_by_name():
    """A model with a list of inputs accepts a dict by their names, as in Keras."""
    one, other = keras.Input((2,), name="one"), keras.Input((3,), name="other")
    model = tapeline.keras(keras.Model([other, one], keras.layers.Concatenate()([one, other])))
    spec = {"one": tf.TensorSpec([2]), "other": tf.TensorSpec([3])}
    model.create_variables(spec)
    y = model({"one": tf.zeros([1, 2]), "other": tf.ones([1, 3])})
    np.testing.assert_array_equal(y, [[0, 0, 1, 1, 1]])
    with pytest.raises(ValueError, match="the Keras model Functional: "):
        model.create_variables({"one": tf.TensorSpec([2])})


def test_training_argument():
    class Mode(keras.layers.Layer):
        def call(self, inputs, training=None):
            return inputs * (2 if training else 1)

    model = tapeline.keras(Mode(), tf.TensorSpec([1]))
    x = tf.ones([2, 1])
    assert model(x, training())[0] == 2 and model(x)[0] == 1


def test_model_without_inputs_is_built_later():
    model = tapeline.keras(Subclassed())
    with pytest.raises(ValueError, match=r"pass the specs of its inputs, tl\.keras\(model, inputs"):
        model(tf.zeros([1, *SHAPE]))
    model.create_variables(SPEC)
    assert model(tf.zeros([1, *SHAPE])).shape == (1, 3)


# Refusals


class Adding(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(keras.ops.mean(inputs))
        return inputs


class Counting(keras.layers.Layer):
    def build(self, input_shape):
        self.calls = self.add_weight(
            shape=(), dtype="int32", trainable=False, initializer="zeros", name="calls"
        )

    def call(self, inputs):
        self.calls.assign_add(1)
        return inputs


class Renewing(keras.layers.Layer):
    def build(self, input_shape):
        self.factor = self.add_weight(shape=(), name="factor")

    def call(self, inputs):
        self.factor.assign(self.factor * 0.9)
        return inputs * self.factor


class Measuring(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.mean = keras.metrics.Mean(name="mean")

    def call(self, inputs):
        self.mean.update_state(inputs)
        return inputs


class Plain(keras.layers.Layer):
    """A layer with a `tf.Variable`, which Keras does not track."""

    def __init__(self, assigns=False):
        super().__init__()
        self.plain, self.assigns = tf.Variable(1.0, name="plain"), assigns

    def call(self, inputs):
        if self.assigns:
            self.plain.assign_add(1.0)
        return inputs * self.plain


class Hidden(keras.layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs), seed=1)


class Looping(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.drop = keras.layers.Dropout(0.5)

    def call(self, inputs):
        return tf.while_loop(
            lambda x: tf.reduce_sum(x) > 9, lambda x: (self.drop(x) / 2,), [inputs]
        )[0]


class Batched(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.reshape(inputs, (4, 3)) + 0 * inputs


def one(*layers):
    return lambda: keras.Sequential([keras.Input((3,)), *layers])


def with_policy(policy):
    return lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=policy)])


REFUSED = {
    "add_loss": (lambda: one(Adding())(), r"adding.* \(Adding\) calls add_loss, in which padding"),
    "activity": (
        lambda: one(keras.layers.Dense(2, activity_regularizer="l2"))(),
        "layer 00_dense has an activity regularizer",
    ),
    "constraint": (
        lambda: one(keras.layers.Dense(2, kernel_constraint="max_norm"))(),
        "00_dense/kernel has the constraint MaxNorm, which no optimizer",
    ),
    "integer": (lambda: one(Counting())(), "00_counting/calls, int32, is assigned in a call"),
    "trained": (lambda: one(Renewing())(), "00_renewing/factor is trained and assigned in a call"),
    "metric": (lambda: one(Measuring())(), "uses the variable .*total, which is not a weight"),
    "variable": (lambda: one(Plain())(), "uses the variable plain:0, which is none of its own"),
    "assigned": (lambda: one(Plain(True))(), "uses the variable plain:0, which is none of its own"),
    "hidden": (lambda: one(Hidden())(), r"a generator with a hidden state \(.*RandomStandardNorm"),
    "loop": (lambda: one(Looping())(), r"dropout.* \(Dropout\) is called in a tf\.function, loop"),
    "mixed": (with_policy("mixed_bfloat16"), "00_dense has the dtype policy mixed_bfloat16"),
    "float16": (with_policy("float16"), "00_dense has the dtype policy float16: leave it out"),
    "float64": (with_policy("float64"), "00_dense has the dtype policy float64: leave it out"),
    "batch size": (
        lambda: keras.Sequential([keras.Input(batch_shape=(4, 3)), keras.layers.Dense(2)]),
        "Sequential has the batch size 4: make its Input without one",
    ),
    "reshape": (lambda: one(Batched())(), "Cannot reshape|reshape"),
    "spectral": (
        lambda: one(keras.layers.SpectralNormalization(keras.layers.Dense(2)))(),
        "00_spectral_normalization/.*is assigned in a call|is trained and assigned",
    ),
    "no model": (lambda: tf.Module(), "takes a Keras model or layer, got Module"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as error:
        tapeline.keras(make(), tf.TensorSpec([3]) if name != "batch size" else None)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_refuses_inputs_of_another_shape():
    with pytest.raises(ValueError, match=r"^the Keras model Functional: Input 0 .*") as error:
        tapeline.keras(functional(), tf.TensorSpec([7, 7, 3]))
    assert "\n" not in str(error.value)


def test_refuses_training_without_noise():
    model = tapeline.keras(one(keras.layers.LayerNormalization())())
    model(tf.zeros([2, 3]), ForwardContext(training=True))
    model = tapeline.keras(functional())
    with pytest.raises(ValueError, match=r"needs ForwardContext\.noise, which is None"):
        model(tf.zeros([2, *SHAPE]), ForwardContext(training=True))


# Applications


@pytest.mark.parametrize("name", [seldom("MobileNetV2"), "EfficientNetB0"])
def test_applications(name):
    make = getattr(keras.applications, name)
    original = make(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None)
    x = tf.constant(np.random.default_rng(0).uniform(size=(16, 32, 32, 3)).astype(np.float32))
    norms = [layer for layer in original.layers if hasattr(layer, "moving_mean")]
    for layer in norms:  # statistics as after a training, or the outputs would fade to nothing
        layer.momentum = 0.0
    original(x, training=True)
    model = tapeline.keras(original)
    expected = original(x)
    assert np.abs(expected).max() > 1e-3
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(model(x) / scale, expected / scale, rtol=1e-4, atol=1e-4)
    assert len(model.trainable_variables) == len(original.trainable_variables)
    names = list(named_variables(model))
    assert len(names) == len(set(names)) == len(model.variables)
    del original
    gc.collect()


def test_keras_is_imported_on_use():
    code = """
import sys
from engine.runtime.startup import import_tensorflow
import_tensorflow()
import tapeline, engine.models.build, engine.assembly.parts
assert not {"keras", "engine.models.keras_adapter"} & set(sys.modules)
tapeline.keras
assert "keras" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
