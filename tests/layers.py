"""Random layers, and comparison of their outputs and gradients with those of Keras's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tapeline.models import ForwardContext, Initializer, Layer, StatelessRNG


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    """Returns random numbers of the standard normal distribution, float32 of the given shape."""
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def made(layer: Layer, input_shape: tuple[int, ...], seed: int = 5) -> Layer:
    """Builds a layer for an input shape and returns it, with random biases, scales and offsets."""
    layer.output_shape = layer.build(input_shape, Initializer(seed, 0, "layer"))
    for index, variable in enumerate(layer.trainable_variables):
        if variable.shape.rank == 1:
            variable.assign(1 + 0.3 * normal(*variable.shape, seed=seed + index))
    return layer


def training(step: int = 0, row: int = 0, **settings) -> ForwardContext:
    """Returns a training context with dropout noise for the given step and first row."""
    noise = StatelessRNG(3, tf.constant(step, tf.int64), tf.constant(row, tf.int64))
    return ForwardContext(training=True, noise=noise, **settings)


def outputs_and_gradients(
    function: Callable, x: tf.Tensor, weight: tf.Tensor, variables: Sequence[tf.Variable]
) -> list[np.ndarray]:
    """Returns a function's output, and the gradients of the weighted sum of the output, as float64.

    Args:
      function: maps `x` to a tensor.
      x: input, [rows, ...]; its gradient comes first, unless its dtype is an integer.
      weight: weights of the sum, float64 of the output's shape.
      variables: variables whose gradients follow.
    """
    watched = [] if x.dtype.is_integer else [x]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        y = function(x)
        loss = tf.reduce_sum(tf.cast(y, tf.float64) * weight)
    gradients = tape.gradient(loss, [*watched, *variables])
    return [np.asarray(tf.convert_to_tensor(each), np.float64) for each in (y, *gradients)]


def differences(
    layer: Layer,
    twin: Callable,
    pairs: Sequence[tuple],
    x: tf.Tensor,
    dtype: tf.DType = tf.float32,
    floor: float = 0.0,
) -> list[float]:
    """Returns the relative differences, in norm, of a layer from Keras's layer in float64.

    There is one for the output, one for the gradient with respect to the input, unless the input
    has integers, and one for the gradient with respect to each variable.

    Args:
      layer: layer with weights.
      twin: function of the input that computes Keras's output in float64.
      pairs: for each variable of the layer, (variable, Keras's variable, function from the array of
        the first to that of the second); Keras's variables are overwritten.
      x: input, [rows, ...].
      dtype: compute dtype of the layer.
      floor: lower limit of the norm that a difference is divided by, as a fraction of the largest
        norm: for gradients in which large terms cancel, whose errors are relative to the terms.
    """
    variables, theirs, changes = zip(*pairs, strict=True) if pairs else ((), (), ())
    assert len(variables) == len(layer.trainable_variables)
    for variable, keras_variable, change in pairs:
        keras_variable.assign(change(variable.numpy()))
    weight = tf.constant(np.random.default_rng(1).normal(size=(x.shape[0], *layer.output_shape)))
    context = training(dtype=dtype)
    inputs = x if x.dtype.is_integer else tf.cast(x, dtype)
    found = outputs_and_gradients(lambda x: layer(x, context), inputs, weight, variables)
    exact = inputs if x.dtype.is_integer else tf.cast(inputs, tf.float64)
    theirs = [getattr(variable, "value", variable) for variable in theirs]
    expected = outputs_and_gradients(twin, exact, weight, theirs)
    first = len(found) - len(variables)
    found[first:] = [change(each) for each, change in zip(found[first:], changes, strict=True)]
    assert [each.shape for each in found] == [each.shape for each in expected]
    least = max(1e-12, floor * max(np.linalg.norm(each) for each in expected))
    return [
        float(np.linalg.norm(a - b) / max(np.linalg.norm(b), least))
        for a, b in zip(found, expected, strict=True)
    ]
