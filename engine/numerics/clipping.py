"""Gradients that are too long, and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from engine.numerics import norms
from engine.numerics.reduction import Tensors


@dataclass(frozen=True)
class Clip:
    """Clips the gradient of the global batch, after the reduction (L2).

    norm: the greatest norm of all tensors as one vector, which are scaled down to it together
      (Pascanu et al. 2013, "On the difficulty of training recurrent neural networks"); 0: any.
    value: the greatest absolute value of an element, which is cut down to it, before the norm is
      looked at; 0: any.
    compiled: whether XLA compiles it.
    """

    norm: float = 0.0
    value: float = 0.0
    compiled: bool = False

    def __call__(self, gradients: Sequence[tf.Tensor]) -> tuple[Tensors, tf.Tensor]:
        """The clipped gradients, and the norm that they had before, float32 [] as of `norms`."""
        gradients, norm = list(gradients), norms.length(gradients, self.compiled)
        if self.value:
            gradients = [tf.clip_by_value(g, -self.value, self.value) for g in gradients]
        if self.norm:
            length = norms.length(gradients, self.compiled) if self.value else norm
            factor = self.norm / tf.maximum(length, self.norm)  # exactly 1 where nothing is due
            gradients = [gradient * factor for gradient in gradients]
        return gradients, norm
