"""Dropout layer with stateless random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.stateless_random import MAX_DROPOUT_RATE


class Dropout(Layer):
    """Dropout layer, which zeroes elements with probability `rate` in training.

    The other elements are divided by 1 - `rate`. The rate is 0 to 1 - 2^-15. A rate that is not a
    multiple of 1/256 is rounded to a multiple of 2^-16; or of 2^-32, if the error would be above 1%
    of `rate` or of `1 - rate`. The dropout mask depends only on (seed, step, row of the global
    batch, index of the layer).

    Raises:
      ValueError: if `rate` is out of range.
    """

    kind = "dropout"

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of a dropout must be in [0, 1), got {rate}")
        if rate > MAX_DROPOUT_RATE:
            raise ValueError(
                f"the rate of a dropout must be at most 1 - 2^-15, got {rate}: what is kept is "
                "multiplied by 1 / (1 - rate), which float16 must hold"
            )
        self.rate = rate

    @property
    def label(self) -> str:
        """Label of the layer, for example "dropout 0.5"."""
        return f"dropout {self.rate:g}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, which is the input shape; there are no variables."""
        self.features = math.prod(input_shape)
        self.stream = initializer.index
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies dropout in training, if the rate is not 0; else returns `x`.

        Raises:
          ValueError: if dropout has to be applied and `context.noise` is None.
        """
        mask = self.mask(tf.shape(x), context)
        return x if mask is None else x * mask

    def mask(self, shape: tf.Tensor | Sequence[tf.Tensor | int], context: ForwardContext) -> Any:
        """Returns the dropout mask, `context.dtype` of `shape`; None if there is no dropout.

        Args:
          shape: shape of the input of the layer, [rows, ...].
          context: context of the forward pass.

        Raises:
          ValueError: if dropout has to be applied and `context.noise` is None.
        """
        if not context.training or self.rate == 0:
            return None
        if context.noise is None:
            raise ValueError(
                "dropout in training needs ForwardContext.noise, which is None: pass a StatelessRNG"
            )
        mask = context.noise.dropout(self.stream, shape[0], self.features, self.rate, context.dtype)
        return tf.reshape(mask, shape)
