"""How far an update moves the weights, measured only where a point of the curves is due."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.numerics import norms
from engine.numerics.branches import either


def update_ratio(
    before: Sequence[tf.Tensor], after: Sequence[tf.Tensor], compiled: bool = False
) -> tf.Tensor:
    """Norm of an update over the norm of the weights it moved, all of them as one vector.

    About 1e-3 is usual; much more is too fast, much less too slow.

    Args:
      before: the trained weights, float32.
      after: the same after the update.
      compiled: whether XLA compiles it.

    Returns:
      float64 []: 0 for a step that moved nothing, nan for weights of 0.
    """
    moved = [new - old for old, new in zip(before, after, strict=True)]
    way, size = (tf.cast(norms.length(each, compiled), tf.float64) for each in (moved, before))
    return tf.where(size > 0, way / size, tf.constant(float("nan"), tf.float64))


class Measured:
    """The ratio of the last step of a stretch, where that is wanted; in the graph.

    For XLA the weights before it are copied only there, into tensors that go round with the loop;
    else they are held by reference, and TensorFlow copies what is then written to.

    Args:
      weights: the trained ones.
      compiled: whether XLA compiles it.
    """

    def __init__(self, weights: Sequence[tf.Variable], compiled: bool) -> None:
        self._weights, self._compiled = weights, compiled

    def nothing(self) -> list[tf.Tensor]:
        """What goes round with the loop, before its first turn."""
        return [tf.zeros(weight.shape) for weight in self._weights] if self._compiled else []

    def before(self, wanted: tf.Tensor, held: list[tf.Tensor]) -> list[tf.Tensor]:
        """The weights before the step.

        Args:
          wanted: bool [], whether the ratio is.
          held: what goes round with the loop.
        """
        return either(wanted, self._now, held) if self._compiled else self._now()

    def after(self, wanted: tf.Tensor, before: list[tf.Tensor], ratio: tf.Tensor) -> tf.Tensor:
        """The ratio after the step, float64 []; `ratio` where it is not wanted."""

        def measured() -> list[tf.Tensor]:
            return [update_ratio(before, self._weights, self._compiled)]

        if self._compiled:
            return either(wanted, measured, [ratio])[0]
        (found,) = measured()
        with tf.device("CPU:0"):  # a number about numbers
            return tf.where(wanted, found, ratio)

    def held(self, before: list[tf.Tensor]) -> list[tf.Tensor]:
        """What goes round with the loop, after a turn."""
        return before if self._compiled else []

    def _now(self) -> list[tf.Tensor]:
        return [tf.identity(weight) for weight in self._weights]
