"""Passes over large tensors that XLA fuses, inside a graph that TensorFlow's executor runs.

On a CPU, the executor writes the result of each elementwise operation to memory, and the next one
reads it again. XLA computes a chain of them, with transpositions and sums, in one pass. Products
stay operations of the executor: oneDNN's are faster than XLA's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.models.base import ForwardContext

# Number of elements from which on a chain is fused. Smaller tensors stay in the processor's caches.
LEAST = 1 << 17


def fuses(x: tf.Tensor, context: ForwardContext) -> bool:
    """Returns whether to compute passes over a tensor by `fused` or `compiled`.

    This is so in training, in a graph for CPUs that XLA does not compile as a whole, if `x` has at
    least `LEAST` elements, whose number the graph knows. Exported models contain no such passes. On
    a GPU, they were not measured.

    Args:
      x: the largest tensor of the passes.
      context: context of the forward pass.
    """
    if not context.training or context.compiled or tf.executing_eagerly():
        return False
    large = (x.shape.num_elements() or 0) >= LEAST
    return large and not tf.config.list_logical_devices("GPU")


def fused(function: Callable, *tensors: tf.Tensor, **settings: Any) -> Any:
    """Returns `function(*tensors, **settings)`, computed by XLA, as its gradient is.

    For the gradient, only `tensors` are kept: it computes the function again, in the same pass.

    Args:
      function: a function of a module, so that all its calls share one compiled program; returns a
        tensor or a tuple of tensors, and assigns no variable.
      *tensors: floating-point tensors of static shapes.
      **settings: hashable keyword arguments of the function.
    """
    forward, backward = compiled(function, **settings), _gradient(function, **settings)

    @tf.custom_gradient
    def call(*tensors):
        return forward(*tensors), lambda *upstream: backward(upstream, tensors)

    return call(*tensors)


@functools.cache
def compiled(function: Callable, **settings: Any) -> Callable:
    """Returns a function of tensors that XLA compiles, once for the shapes of all calls.

    Args:
      function: a function of a module; see `fused`.
      **settings: hashable keyword arguments of the function.
    """

    def program(*tensors: tf.Tensor) -> Any:
        return function(*tensors, **settings)

    return tf.function(program, autograph=False, jit_compile=True)


@functools.cache
def _gradient(function: Callable, **settings: Any) -> Callable:
    """Returns the gradient of a function by its tensors, compiled as in `compiled`."""

    def program(upstream: tuple[tf.Tensor, ...], tensors: tuple[tf.Tensor, ...]) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            outputs = function(*tensors, **settings)
        given = list(upstream) if isinstance(outputs, tuple) else upstream[0]
        return tape.gradient(outputs, tensors, given)

    return tf.function(program, autograph=False, jit_compile=True)


def column_sums(x: tf.Tensor) -> tf.Tensor:
    """Returns the sums over all axes but the last, float32 [units], by a program of their own."""
    return compiled(_column_sums)(x)


def _column_sums(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(x, tf.float32), list(range(x.shape.rank - 1)))
