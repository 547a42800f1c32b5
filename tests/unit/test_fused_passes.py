"""Tests of passes that XLA fuses inside a graph, and of the conditions for them."""

import numpy as np
import pytest
import tensorflow as tf

from engine.models import fused_passes
from engine.models.fused_passes import compiled, fused, fuses
from engine.models.layers import Activation, Attention, Dense, LayerNorm
from tapeline.models import ForwardContext
from tests.layers import made, normal, outputs_and_gradients, training

UNIT = {tf.float32: 2.0**-24, tf.bfloat16: 2.0**-9, tf.float16: 2.0**-12}
LAYERS = {
    "dense gelu": (lambda: Dense(12, "gelu"), 8),
    "gelu": (lambda: Activation("gelu"), 8),
    "layer norm": (LayerNorm, 60),
    "layer norm without offset": (lambda: LayerNorm(use_offset=False), 60),
    "attention": (lambda: Attention(2), 60),
    "causal attention": (lambda: Attention(2, causal=True, key_bias=True), 60),
    "dropped attention": (lambda: Attention(2, dropout=0.25, use_bias=False), 60),
}


@pytest.fixture
def small(monkeypatch):
    """Fuses the passes over small tensors, too."""
    monkeypatch.setattr(fused_passes, "LEAST", 1)


def programs(layer, context, x):
    """Returns the number of functions that XLA compiles, in a graph of a layer and its gradient."""

    @tf.function(autograph=False)
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, context)
        return tape.gradient(y, x)

    graph = both.get_concrete_function(x).graph
    return sum(_is_compiled(op) for op in graph.get_operations())


def _is_compiled(op):
    return "PartitionedCall" in op.type and op.get_attr("_XlaMustCompile")


def in_graph(layer, context, x, weight):
    """Returns output and gradients of a layer in a graph, as float64 arrays."""
    variables = layer.trainable_variables

    @tf.function(autograph=False)
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, context)
            loss = tf.reduce_sum(tf.cast(y, tf.float64) * weight)
        return [y, *tape.gradient(loss, [x, *variables])]

    return [tf.cast(each, tf.float64).numpy() for each in both(x)]


@pytest.mark.parametrize("dtype", list(UNIT), ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", LAYERS)
def test_output_and_gradients(name, dtype, monkeypatch, small):
    """They are those of the executor's operations in float64, within rounding."""
    make, roundings = LAYERS[name]
    layer, x = made(make(), (5, 8)), tf.cast(normal(3, 5, 8), dtype)
    weight = tf.constant(np.random.default_rng(1).normal(size=(3, *layer.output_shape)))
    context = training(dtype=dtype)
    assert programs(layer, context, x) > 1
    found = in_graph(layer, context, x, weight)
    monkeypatch.setattr(fused_passes, "LEAST", 1 << 40)
    expected = outputs_and_gradients(
        lambda x: layer(x, training()), tf.cast(x, tf.float32), weight, layer.trainable_variables
    )
    largest = max(np.linalg.norm(each) for each in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        least = max(np.linalg.norm(theirs), 0.1 * largest)
        assert np.linalg.norm(ours - theirs) <= roundings * UNIT[dtype] * least


def test_conditions(monkeypatch):
    """Not in evaluation, under XLA, in eager execution, on small tensors or beside a GPU."""
    layer, x = made(LayerNorm(), (64, 64)), normal(32, 64, 64)
    assert x.shape.num_elements() == fused_passes.LEAST
    assert programs(layer, training(), x) == 2
    assert not programs(layer, ForwardContext(), x)
    assert not programs(layer, training(compiled=True), x)
    assert not programs(layer, training(), x[1:])
    assert not programs(layer, training(), tf.TensorSpec([None, 64, 64]))
    assert not fuses(x, training())
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert not programs(layer, training(), x)


def test_one_program_for_equal_layers(small):
    """Layers of the same shapes and settings share a program, which is compiled once."""
    first, second = (made(LayerNorm(), (5, 8), seed) for seed in (1, 2))
    other = made(LayerNorm(1e-3), (5, 8))

    def names(layer):
        function = tf.function(lambda x: layer(x, training()), autograph=False)
        graph = function.get_concrete_function(normal(3, 5, 8)).graph
        return {op.get_attr("f").name for op in graph.get_operations() if _is_compiled(op)}

    assert names(first) == names(second) != names(other)


def test_same_bits_twice(small):
    layer, x = made(Attention(2, causal=True), (5, 8)), normal(3, 5, 8)
    weight = tf.ones([3, 5, 8], tf.float64)
    one, other = (in_graph(layer, training(), x, weight) for _ in range(2))
    assert [each.tobytes() for each in one] == [each.tobytes() for each in other]


def test_gradient_of_a_key_bias_is_zero(small):
    """Exactly, as without fusion: the bias keeps its value."""
    layer, x = made(Attention(2, key_bias=True), (5, 8)), normal(3, 5, 8)
    (of_bias,) = (
        gradient
        for gradient, variable in zip(
            in_graph(layer, training(), x, tf.ones([3, 5, 8], tf.float64))[2:],
            layer.trainable_variables,
            strict=True,
        )
        if variable is layer.key_bias
    )
    assert not of_bias.any()


def test_settings_and_several_outputs():
    """Settings choose the program, and a gradient takes those of all outputs."""

    @tf.function(autograph=False)
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = fused(_powers, x, exponent=3)
        return tape.gradient(outputs, x), compiled(_powers, exponent=2)(x)[1]

    slope, square = both(tf.constant([2.0]))
    assert float(slope[0]) == 13 and float(square[0]) == 4


def _powers(x, exponent):
    return x, x**exponent
