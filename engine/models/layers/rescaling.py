"""Multiplication by a constant."""

from __future__ import annotations

import math

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape


class Rescaling(Layer):
    """Multiplication of each element by a constant factor, for example of logits.

    Raises:
      ValueError: if `factor` is not finite.
    """

    kind = "rescaling"

    def __init__(self, factor: float):
        super().__init__()
        if not math.isfinite(factor):
            raise ValueError(f"the factor of a rescaling must be finite, got {factor}")
        self.factor = factor

    @property
    def label(self) -> str:
        """Label of the layer, for example "rescaling by 0.111"."""
        return f"{self.kind} by {self.factor:.3g}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, which is the input shape; there are no variables."""
        return input_shape

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns (height, width): no element is moved; see `Layer.reads`."""
        return height, width

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns `factor * x`, [rows, ...], of the dtype of `x`."""
        return x * tf.cast(self.factor, x.dtype)
