"""Measures the rate of plain matrix products, the upper bound that a step is compared with."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from engine.core.steps_per_loop import stopwatch

_SIZES = (512, 1024, 2048, 4096)
_SECONDS = 0.15  # approximate duration of one measurement


def roofline(dtype: tf.DType, *, gpu: bool) -> Callable[[], float]:
    """Returns a function that measures the rate of matrix products of a dtype, in GFLOP/s.

    The products are computed on the first GPU if `gpu`, else on the CPU. The matrices are square,
    of the fastest of the sizes in `_SIZES`. A measurement takes about `_SECONDS`.
    """

    def operands(size: int) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device("GPU:0" if gpu else "CPU:0"):
            matrix = tf.cast(tf.random.stateless_uniform([size, size], [1, 2]), dtype)
            return matrix, tf.cast(tf.eye(size), dtype)

    rates = {size: _rate(*operands(size), 1) for size in _SIZES[: None if gpu else -1]}
    size = max(rates, key=rates.__getitem__)
    times = max(1, int(_SECONDS * rates[size] * 1e9 / (2.0 * size**3)))
    return functools.partial(_rate, *operands(size), times)


def _rate(matrix: tf.Tensor, identity: tf.Tensor, times: int) -> float:
    """Returns the rate of `times` matrix products in GFLOP/s, after a warm-up call."""
    _products(matrix, identity, tf.constant(1)).numpy()
    started = stopwatch()
    _products(matrix, identity, tf.constant(times)).numpy()
    return 2.0 * matrix.shape[0] ** 3 * times / (stopwatch() - started) / 1e9


@tf.function(autograph=False)
def _products(matrix: tf.Tensor, identity: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """Multiplies a matrix `times` times by the identity, so that all products stay finite.

    `times` is int32 []. Returns the first element of the last product, for which the caller can
    wait.
    """
    _, last = tf.while_loop(
        lambda done, _: done < times,
        lambda done, product: (done + 1, tf.matmul(product, identity)),
        [tf.constant(0), matrix],
        parallel_iterations=1,
    )
    return last[0, 0]
