"""Measures the rate of plain matrix products, the upper bound that a step is compared with."""

from __future__ import annotations

import tensorflow as tf

from engine.core.steps_per_loop import stopwatch

_SIZES = (512, 1024, 2048, 4096)
_SECONDS = 0.15  # approximate duration of one measurement


class Roofline:
    """Measures the rate of square matrix products on one device, for about `_SECONDS` each time.

    Args:
      dtype: compute dtype of the layers.
      gpu: whether the device is the first GPU; else the CPU.
    """

    def __init__(self, dtype: tf.DType, *, gpu: bool) -> None:
        self._dtype, self._device = dtype, "GPU:0" if gpu else "CPU:0"
        self._operands: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}
        found = {size: self._rate(size, 1) for size in _SIZES[: None if gpu else -1]}
        self._size = max(found, key=found.__getitem__)
        flop = 2.0 * self._size**3
        self._times = max(1, int(_SECONDS * found[self._size] * 1e9 / flop))

    def measure(self) -> float:
        """Returns the current rate, in GFLOP/s."""
        return self._rate(self._size, self._times)

    def _rate(self, size: int, times: int) -> float:
        """Returns the rate of `times` products of size x size in GFLOP/s, after a warm-up call."""
        if size not in self._operands:
            with tf.device(self._device):
                matrix = tf.cast(tf.random.stateless_uniform([size, size], [1, 2]), self._dtype)
                self._operands = {size: (matrix, tf.cast(tf.eye(size), self._dtype))}
        matrix, identity = self._operands[size]
        _products(matrix, identity, tf.constant(1)).numpy()
        started = stopwatch()
        _products(matrix, identity, tf.constant(times)).numpy()
        return 2.0 * size**3 * times / (stopwatch() - started) / 1e9


@tf.function(autograph=False)
def _products(matrix: tf.Tensor, identity: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """Multiplies `times` times by the identity, to keep values in range; returns one element."""
    _, last = tf.while_loop(
        lambda done, _: done < times,
        lambda done, product: (done + 1, tf.matmul(product, identity)),
        [tf.constant(0), matrix],
        parallel_iterations=1,
    )
    return last[0, 0]
