"""Inspection: expected memory of graphs, origins of values that are not finite, sizes as text."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.core.tensor_memory import peak_bytes
from engine.inspection.cost import size
from engine.inspection.eager_trace import EagerTrace, not_finite

KIB = tf.TensorSpec([16, 16], tf.float32)  # 1 KiB


def peak(function, *specs):
    return peak_bytes(tf.function(function, autograph=False).get_concrete_function(*specs).graph)


def test_memory_of_chain_is_reused():
    # The operations on single elements write over the product; the input is not counted.
    assert peak(lambda x: tf.exp(tf.nn.relu(x @ x)), KIB) == 1024


def test_memory_of_matrix_products():
    # The second product needs the first, which is freed before the third.
    assert peak(lambda x: ((x @ x) @ x) @ x, KIB) == 2 * 1024


def test_tensors_for_gradient_are_kept():
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(5):
                y = tf.tanh(y @ x)
            loss = tf.reduce_sum(y)
        return tape.gradient(loss, x)

    # Five activations; in the backward pass a gradient, a product and a sum at once.
    assert 6 * 1024 <= peak(gradient, KIB) <= 9 * 1024


def test_memory_of_reshaped_tensor_counts_once():
    assert peak(lambda x: tf.reshape(tf.reshape(x @ x, [256]), [16, 16]) @ x, KIB) == 2 * 1024


def test_memory_in_loop():
    def looped(x):
        return tf.while_loop(lambda i, y: i < 4, lambda i, y: (i + 1, (y @ x) @ x), [0, x])[1]

    # In the body: two products at once; outside: the result.
    assert 2 * 1024 <= peak(looped, KIB) <= 3 * 1024 + 64


def test_gradient_of_batched_product():
    """Of a product with a matrix that all rows share, the sum's shape is not in the graph."""
    rows, matrix = tf.ones([2, 16, 16]), tf.TensorSpec([1, 16, 16], tf.float32)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(rows @ x))
        return tape.gradient(loss, x)

    assert 3 * 1024 <= peak(gradient, matrix) <= 8 * 1024


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="a size is not known"):
        peak(lambda x: x @ x, tf.TensorSpec([None, 16], tf.float32))


class Inner(tf.Module):
    def __call__(self, x):
        return tf.math.log(x)


class Outer(tf.Module):
    def __init__(self):
        super().__init__()
        self.inner = [Inner(), Inner()]
        self.scale = tf.Variable(2.0)

    def __call__(self, x):
        return self.inner[1](self.inner[0](x + 2.0)) * tf.cast(self.scale, tf.bfloat16)


def traced(module):
    modules = {"outer": module, "inner/0": module.inner[0], "inner/1": module.inner[1]}
    return EagerTrace(modules, {"scale": module.scale})


def test_origin_is_first_operation():
    module = Outer()
    trace = traced(module)
    with trace.recorded():
        result = module(tf.cast([-1.0, 2.0], tf.bfloat16))
        mean = tf.reduce_mean(result + 1)
    origin = trace.origin(mean)  # log(log(1)) is -inf
    assert origin is not None
    assert (origin.operation, origin.module) == ("Log", "inner/1")
    assert origin.values == "1 of 2 values are infinite"
    assert trace.origin(tf.ones([])) is None
    calls = [(call.name, call.kind, call.outputs) for call in trace.modules]
    assert calls == [
        ("outer", "Outer", "2 bfloat16"),
        ("inner/0", "Inner", "2 bfloat16"),
        ("inner/1", "Inner", "2 bfloat16"),
    ]
    assert trace.casts == {id(module.scale): "bfloat16"}


def test_classes_are_restored():
    before = Inner.__call__
    trace = traced(Outer())
    with pytest.raises(tf.errors.InvalidArgumentError), trace.recorded():
        assert Inner.__call__ is not before
        tf.matmul(tf.ones([2, 3]), tf.ones([2, 3]))
    assert Inner.__call__ is before and not tf.config.functions_run_eagerly()
    outer = Outer()
    assert trace.modules == []
    outer(tf.cast([1.0], tf.bfloat16))
    assert trace.modules == []  # nothing is recorded any more


def test_functions_run_eagerly_in_trace():
    trace = EagerTrace({}, {})
    divided = tf.function(lambda x: 1.0 / x)
    divided(tf.constant([1.0]))
    with trace.recorded():
        result = divided(tf.constant([0.0]))
    origin = trace.origin(result)
    assert origin is not None and origin.operation == "RealDiv"


def test_gradient_that_is_not_finite():
    trace = EagerTrace({}, {})
    x = tf.constant([0.0, 4.0])
    with trace.recorded():
        with tf.GradientTape() as tape:
            tape.watch(x)
            root = tf.sqrt(x)
        gradient = tape.gradient(root, x)
    assert trace.origin(root) is None
    origin = trace.origin(gradient)
    assert origin is not None and "infinite" in origin.values


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0], ""),
        ([1, 2], ""),
        ([np.nan, 2.0], "1 of 2 values are nan"),
        ([np.inf, -np.inf], "2 of 2 values are infinite"),
        ([np.nan, np.inf, 0.0], "2 of 3 values are nan or infinite"),
    ],
)
def test_values_that_are_not_finite(values, text):
    assert not_finite(tf.constant(values)) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (5 << 30, "5 GiB")]
)
def test_sizes(count, text):
    assert size(count) == text
