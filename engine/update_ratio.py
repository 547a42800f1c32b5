"""How far one update moves the weights, measured only where a point of the curves is due."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class UpdateRatio:
    """Norm of an update over the norm of the weights it moves, all of them as one vector.

    About 1e-3 is usual; much more is too fast, much less too slow. It costs a copy of the weights
    at a point of the curves and nothing between two of them.

    Args:
      weights: the trained variables.
    """

    def __init__(self, weights: Sequence[tf.Variable]) -> None:
        self._weights = weights
        self._before: list[tf.Tensor] = []

    def start(self) -> None:
        """Call before the step."""
        self._before = [tf.identity(weight) for weight in self._weights]

    def measure(self) -> float:
        """Call after it: the ratio; 0 for a step that moved nothing, nan for weights of 0."""
        before, self._before = self._before, []
        moved = [weight - old for weight, old in zip(self._weights, before, strict=True)]
        length = float(tf.linalg.global_norm(before))
        return float(tf.linalg.global_norm(moved)) / length if length else float("nan")
