"""Gradients that are too long, and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from engine.reduction import Tensors


@dataclass(frozen=True)
class Clip:
    """Clips the gradient of the global batch, after the reduction (L2).

    norm: the greatest norm of all tensors as one vector, which are scaled down to it together
      (Pascanu et al. 2013, "On the difficulty of training recurrent neural networks"); 0: any.
    value: the greatest absolute value of an element, which is cut down to it, before the norm is
      looked at; 0: any.
    """

    norm: float = 0.0
    value: float = 0.0

    def __call__(self, gradients: Sequence[tf.Tensor]) -> tuple[Tensors, tf.Tensor]:
        """The clipped gradients, and the norm that they had before.

        The norm, float32 [], is infinite or nan exactly when an element is, or when it is above
        1.8e19, whose square float32 cannot hold.
        """
        gradients, norm = list(gradients), _norm(gradients)
        if self.value:
            gradients = [tf.clip_by_value(g, -self.value, self.value) for g in gradients]
        if self.norm:
            length = _norm(gradients) if self.value else norm
            factor = self.norm / tf.maximum(length, self.norm)  # exactly 1 where nothing is due
            gradients = [gradient * factor for gradient in gradients]
        return gradients, norm


def _norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    # The fused kernel is of half the sum of squares. TensorFlow's own global norm makes an
    # infinity a nan.
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients]))
