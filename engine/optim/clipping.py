"""Gradient clipping by global norm and by value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from engine.distributed.reduction import Tensors
from engine.optim import norms


@dataclass(frozen=True)
class Clip:
    """Clips the gradients of the global batch, after the all-reduce (L2).

    Attributes:
      norm: maximum global norm; gradients of a larger norm are all scaled down by the same factor
        (Pascanu et al. 2013, "On the difficulty of training recurrent neural networks"); 0: no
        maximum.
      value: maximum absolute value of an element, applied before `norm`; 0: no maximum.
      compiled: whether XLA compiles the clipping.
    """

    norm: float = 0.0
    value: float = 0.0
    compiled: bool = False

    def __call__(self, gradients: Sequence[tf.Tensor]) -> tuple[Tensors, tf.Tensor]:
        """Returns the clipped gradients and their global norm before clipping, float32 []."""
        gradients, norm = list(gradients), norms.length(gradients, self.compiled)
        if self.value:
            gradients = [tf.clip_by_value(g, -self.value, self.value) for g in gradients]
        if self.norm:
            length = norms.length(gradients, self.compiled) if self.value else norm
            factor = self.norm / tf.maximum(length, self.norm)  # exactly 1 without clipping
            gradients = [gradient * factor for gradient in gradients]
        return gradients, norm
