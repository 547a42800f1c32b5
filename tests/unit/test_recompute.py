"""Recomputed calls: gradients, effects on the context, kept memory, and names of modules."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import tapeline
from benchmarks.memory import allocated
from engine.core.tensor_memory import peak_bytes
from engine.models.recompute import recomputed
from engine.models.recomputed_modules import callable_modules, recompute
from tapeline import models
from tests.harness import same_bits
from tests.layers import normal, training

DEVICES = ("", "CPU", "GPU")  # "GPU" uses a barrier, which XLA also accepts on a CPU


def gradients(function, sources, compiled_for="", wrap=True):
    """Returns the gradients of the sum of squares of a function's outputs, computed in a graph.

    Args:
      function: called with `call`, which stands for `recomputed` or, without `wrap`, a plain call.
      sources: tensors or variables.
      compiled_for: as in `recomputed`.
      wrap: whether calls are recomputed.
    """

    def call(own, *arguments):
        return recomputed(own, *arguments, compiled_for=compiled_for) if wrap else own(*arguments)

    @tf.function(autograph=False, jit_compile=bool(compiled_for))
    def computed():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = tf.nest.flatten(function(call))
            loss = tf.add_n([tf.reduce_sum(tf.square(each)) for each in outputs])
        return [tf.convert_to_tensor(each) for each in tape.gradient(loss, sources)]

    return [each.numpy() for each in computed()]


def assert_equal_gradients(function, sources, compiled_for=""):
    ours = gradients(function, sources, compiled_for)
    theirs = gradients(function, sources, compiled_for, wrap=False)
    for one, other in zip(ours, theirs, strict=True):
        assert np.linalg.norm(other) > 0
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled_for", DEVICES)
def test_gradients_of_arguments_and_variables(compiled_for):
    x, kernel = normal(4, 3), tf.Variable(normal(3, 3, seed=1))
    frozen = tf.Variable(normal(3, seed=2), trainable=False)

    def block(x, ids, *, scale):
        return {"y": tf.tanh(x @ kernel + frozen) * scale, "z": tf.gather(x, ids)}

    def function(call):
        ids = tf.constant([0, 2, 2])
        return call(lambda x, ids: block(x, ids, scale=2.0), x * 3, ids)

    assert_equal_gradients(function, [x, kernel], compiled_for)


@pytest.mark.parametrize("compiled_for", DEVICES)
def test_gradient_of_tensor_from_closure(compiled_for):
    x, y = normal(4, 3), normal(4, 3, seed=1)

    def function(call):
        outer, both = tf.exp(y), x * 2
        return call(lambda x: tf.sin(x) * outer + tf.cos(both) * x, both)

    assert_equal_gradients(function, [x, y], compiled_for)


def test_gradient_of_tensor_that_is_given_twice():
    x = normal(4, 3)
    assert_equal_gradients(lambda call: call(lambda one, other: one * tf.exp(other), x, x), [x])


def test_gradient_of_embedding():
    table = tf.Variable(normal(5, 3))
    ids = tf.constant([1, 1, 4])
    ours = gradients(lambda call: call(lambda ids: tf.gather(table, ids), ids), [table])
    assert ours[0].shape == (5, 3) and np.array_equal(ours[0][4], 2 * table.numpy()[4])


def test_output_without_gradient():
    x = normal(4, 3)

    def function(call):
        used, _, count = call(lambda x: (tf.exp(x), tf.sin(x), tf.shape(x)), x)
        return used * tf.cast(count[0], tf.float32)

    assert_equal_gradients(function, [x])


def test_inside_function_of_user():
    """In a `tf.function` that the forward pass calls, gradients are right."""
    x, kernel = normal(4, 3), tf.Variable(normal(3, 3, seed=1))

    def function(call):
        inner = tf.function(lambda x: call(lambda x: tf.tanh(x @ kernel), x), autograph=False)
        return inner(x)

    assert_equal_gradients(function, [x, kernel])


def test_nothing_is_recomputed_without_a_tape():
    def operations(wrap):
        def function(x):
            return recomputed(tf.exp, x) if wrap else tf.exp(x)

        traced = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([2]))
        return [op.type for op in traced.graph.get_operations()]

    assert operations(True) == operations(False)
    assert recomputed(tf.exp, tf.zeros([2])).numpy().tolist() == [1, 1]


def stack(depth, recomputes):
    """Returns the graph of the gradient of a chain of `depth` blocks of three products."""
    kernel = tf.Variable(normal(64, 64))

    def block(x):
        for _ in range(3):
            x = tf.tanh(x @ kernel)
        return x

    def gradient(x):
        with tf.GradientTape() as tape:
            for _ in range(depth):
                x = recomputed(block, x) if recomputes else block(x)
            loss = tf.reduce_sum(x)
        return tape.gradient(loss, kernel)

    spec = tf.TensorSpec([64, 64])
    return tf.function(gradient, autograph=False).get_concrete_function(spec).graph


def test_activations_are_not_kept():
    size = 64 * 64 * 4
    plain, recomputes = (peak_bytes(stack(8, each)) for each in (False, True))
    assert plain >= 8 * 3 * size
    assert recomputes <= (8 + 3 + 6) * size  # the inputs of the blocks, and one block
    products = [op for op in stack(8, True).get_operations() if op.type == "MatMul"]
    # Of both calls, and two gradients each but for the input of the network.
    assert len(products) == 8 * 3 * (1 + 1 + 2) - 1


@pytest.mark.parametrize("compiled_for", ["", "CPU"])
def test_memory_of_allocator(compiled_for):
    """TensorFlow's graph optimizer and XLA do not merge the second call with the first."""
    kernel, jit = tf.Variable(normal(256, 256) / 16), bool(compiled_for)

    def block(x):
        for _ in range(4):
            x = tf.tanh(x @ kernel)
        return x

    def highest(recomputes):
        @tf.function(autograph=False, jit_compile=jit)
        def gradient(x):
            with tf.GradientTape() as tape:
                for _ in range(6):
                    x = recomputed(block, x, compiled_for=compiled_for) if recomputes else block(x)
                loss = tf.reduce_sum(x)
            return tape.gradient(loss, kernel)

        x = normal(512, 256)
        gradient(x)
        try:
            return allocated(lambda: gradient(x).numpy())[0]
        except SystemExit as none:
            pytest.skip(str(none))

    plain, ours = highest(False), highest(True)
    assert plain >= 6 * 4 * 512 * 256 * 4
    assert ours <= 0.75 * plain


class Block(models.Layer):
    """Layer with dropout, a penalty and a statistic, which uses everything in a context."""

    kind = "block"

    def build(self, input_shape, initializer):
        self.norm, self.dropout = models.BatchNorm(), models.Dropout(0.5)
        self.kernel = initializer.glorot_uniform("kernel", (input_shape[0], input_shape[0]))
        self.norm.build(input_shape, initializer.nested("norm", "batch norm"))
        return self.dropout.build(input_shape, initializer.nested("dropout", "dropout"))

    def __call__(self, x, context):
        context.penalties.append(tf.reduce_sum(tf.square(self.kernel)))
        seed = context.seed("block")
        noise = tf.random.stateless_uniform(tf.shape(x), seed, dtype=x.dtype)
        return x + self.dropout(self.norm(tf.tanh(x @ self.kernel) + noise, context), context)


def step_of(model, compiled_for=""):
    """Returns gradients, proposed statistics and kinds of random numbers of a training step."""
    weights = model.trainable_variables

    @tf.function(autograph=False, jit_compile=bool(compiled_for))
    def step(x, mask):
        context = training(step=3, mask=mask)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss = tf.reduce_sum(tf.square(model(x, context))) + tf.add_n(context.penalties)
        found = tape.gradient(loss, weights)
        kinds.update(context.noise.drawn)
        return found, [(u.value, u.weight, u.batch) for u in context.updates], context.penalties

    kinds: set[str] = set()
    found = step(normal(4, 6), tf.constant([1.0, 1.0, 1.0, 0.0]))
    # A statistic of a layer of Keras that is called twice has no value of the batch alone.
    return [each.numpy() for each in tf.nest.flatten(found) if each is not None], kinds


@pytest.mark.parametrize("compiled_for", DEVICES)
def test_context(compiled_for):
    """Masks, dropout, seeds, penalties and statistics are those of a plain call, and count once."""

    def network():
        return models.Sequential("network", [Block(), Block(), models.Dense(2)], (6,), seed=0)

    one, other = network(), network()
    assert recompute(other, ["layers/[01]"], compiled_for) == ["layers/0", "layers/1"]
    (plain, kinds), (ours, our_kinds) = step_of(one, compiled_for), step_of(other, compiled_for)
    assert kinds == our_kinds == {"per_example", "per_microbatch"}
    if not compiled_for:
        assert same_bits(plain, ours)
    for expected, found in zip(plain, ours, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_context_is_delayed():
    """Random numbers are drawn again in the second call, and not kept."""

    def drawn(recomputes):
        network = models.Sequential("network", [Block()], (6,), seed=0)
        recompute(network, ["layers/0"] if recomputes else [])
        weights = network.trainable_variables

        def gradient(x):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                loss = tf.reduce_sum(network(x, training()))
            return tape.gradient(loss, weights)

        spec = tf.TensorSpec([4, 6])
        graph = tf.function(gradient, autograph=False).get_concrete_function(spec).graph
        return [op for op in graph.get_operations() if "StatelessRandomUniformFullInt" in op.type]

    first, second = drawn(False), drawn(True)
    assert len(second) == 2 * len(first) > 0
    inputs = [[tensor.name for tensor in op.inputs] for op in second]
    assert inputs[0] != inputs[len(first)]


class Inner(tf.Module):
    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    def __call__(self, x, *, training=False):
        return tf.exp(x * self.factor) if training else x


class Outer(tf.Module):
    def __init__(self):
        super().__init__()
        self.blocks = [Inner(), Inner()]

    def __call__(self, x, training):
        for block in self.blocks:
            x = block(x, training=training)
        return x


def test_names_of_modules():
    model = tapeline.module(Outer(), tf.TensorSpec([3]))
    assert list(callable_modules(model)) == ["module/blocks/0", "module/blocks/1"]
    assert recompute(model, ["module/blocks/*"]) == ["module/blocks/0", "module/blocks/1"]
    assert type(model.module.blocks[0]).__name__ == "Inner"
    assert isinstance(model.module.blocks[0], Inner)
    names = [variable.name for variable in model.variables]
    assert len(names) == 2


def test_names_of_layers():
    layers = [
        *(models.Convolution(2, activation="relu"), models.MaxPool(2), models.Flatten()),
        *(models.Residual(models.Dense(18)), models.Dense(2)),
    ]
    model = models.Sequential("network", layers, (8, 8, 1), seed=0)
    assert "layers/0" not in callable_modules(model)  # computed with the max pool
    with pytest.raises(ValueError, match=r"--recompute=blocks: no module .*layers/1, layers/2"):
        recompute(model, ["layers/3", "blocks"])
    assert recompute(model, ["layers/3*", "*/1"]) == ["layers/1", "layers/3"]
    assert recompute(model, []) == []


def keras_network(recomputes):
    import keras

    class KerasBlock(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            regularizer = keras.regularizers.L2(0.1)
            self.dense = keras.layers.Dense(6, "tanh", kernel_regularizer=regularizer)
            self.norm, self.dropout = keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)
            self.noise = keras.layers.GaussianNoise(0.1)

        def build(self, shape):
            for layer in (self.dense, self.norm):
                layer.build(shape)
            super().build(shape)

        def call(self, x):  # `training` reaches the inner layers without being an argument
            return x + self.dropout(self.noise(self.norm(self.norm(self.dense(x)))))

    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = inputs
    for _ in range(2):
        x = KerasBlock()(x)
    model = tapeline.keras(keras.Model(inputs, keras.layers.Dense(2)(x)))
    assert "functional" not in callable_modules(model)  # the whole model
    if recomputes:
        assert recompute(model, ["*_block"]) == ["00_keras_block", "05_keras_block"]
    return model


def test_keras_layers():
    """Of layers of Keras, random numbers, statistics and regularizers are those of a plain call."""
    plain, _ = step_of(keras_network(False))
    ours, _ = step_of(keras_network(True))
    assert same_bits(plain, ours)
