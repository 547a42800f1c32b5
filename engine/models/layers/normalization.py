"""Layer normalization; batch normalization is in engine/models/batch_norm.py."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import called


class LayerNorm(Layer):
    """Layer normalization over the last axis of each position, with a learned scale and offset.

    Ba, Kiros and Hinton, 2016, "Layer normalization". `epsilon`, above 0, is added to the biased
    variance; 1e-5 is that of GPT-2 (Radford et al. 2019).

    Raises:
      ValueError: if `epsilon` is not above 0.
    """

    kind = "layer norm"

    def __init__(self, epsilon: float = 1e-5):
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f"the epsilon of a layer norm must be above 0, got {epsilon}")
        self.epsilon = epsilon

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, which is the input shape.

        Raises:
          ValueError: if `input_shape` is empty.
        """
        if not input_shape:
            raise ValueError(
                f"{called(self, initializer)} takes [rows, ..., features], got a number of each"
                " row: give the inputs a last axis of features"
            )
        self.scale = initializer.constant("scale", input_shape[-1:], 1.0)
        self.offset = initializer.constant("offset", input_shape[-1:], 0.0)
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Normalizes [rows, ..., features] in float32; returns the result in `context.dtype`."""
        x = tf.cast(x, tf.float32)
        # The variance is that of the centred values: a difference of mean squares would cancel.
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        x = centred * tf.math.rsqrt(variance + self.epsilon)
        # Without it, the graph optimizer multiplies in another order where no gradient uses `x`: in
        # evaluation, and in the first call of a recomputed module.
        x = tf.ensure_shape(x, x.shape)
        return tf.cast(x * self.scale + self.offset, context.dtype)
