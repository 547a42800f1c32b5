"""How far an update moves the weights, measured only where a point of the curves is due."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine import norms


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
