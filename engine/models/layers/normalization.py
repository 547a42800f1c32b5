"""Layer normalization; batch normalization is in engine/models/batch_norm.py."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.fused_passes import compiled, fuses
from engine.models.layers.checks import called


class LayerNorm(Layer):
    """Layer normalization over the last axis of each position, with a learned scale and offset.

    Ba, Kiros and Hinton, 2016, "Layer normalization".

    Args:
      epsilon: number above 0 that is added to the biased variance; 1e-5 is that of GPT-2 (Radford
        et al. 2019).
      use_offset: whether there is an offset.

    Raises:
      ValueError: if `epsilon` is not above 0.
    """

    kind = "layer norm"

    def __init__(self, epsilon: float = 1e-5, *, use_offset: bool = True):
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f"the epsilon of a layer norm must be above 0, got {epsilon}")
        self.epsilon, self._use_offset = epsilon, use_offset

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
        if self._use_offset:
            self.offset = initializer.constant("offset", input_shape[-1:], 0.0)
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Normalizes [rows, ..., features] in float32; returns the result in `context.dtype`."""
        scale = tf.convert_to_tensor(self.scale)
        offset = tf.convert_to_tensor(self.offset) if self._use_offset else tf.zeros_like(scale)
        if fuses(x, context):
            x = fused_normalized(x, scale, offset, self.epsilon)
        else:
            x = normalized(tf.cast(x, tf.float32), scale, offset, self.epsilon)
        return tf.cast(x, context.dtype)


def normalized(x, scale, offset, epsilon):
    """Returns the layer norm of `x`, float32 [rows, ..., features], over the last axis.

    The gradient is the closed form, with two sums over the features of each position, where that
    which TensorFlow derives has four.
    """

    @tf.custom_gradient
    def function(x, scale, offset):
        # The variance is that of the centred values: a difference of mean squares would cancel.
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        inverse = tf.math.rsqrt(variance + epsilon)
        x = centred * inverse
        # Without it, the graph optimizer multiplies in another order where no gradient uses `x`: in
        # evaluation, and in the first call of a recomputed module.
        x = tf.ensure_shape(x, x.shape)

        def gradient(upstream):
            of_scale = tf.reduce_sum(upstream * x, 0)
            of_offset = tf.raw_ops.BiasAddGrad(out_backprop=upstream)
            slope = upstream * scale
            mean = tf.reduce_mean(slope, -1, keepdims=True)
            along = tf.reduce_mean(slope * x, -1, keepdims=True)
            return (slope - mean - x * along) * inverse, of_scale, of_offset

        return x * scale + offset, gradient

    # As a matrix: XLA for CPUs takes several times as long to sum a gradient over two axes.
    features = tf.reshape(x, [-1, x.shape[-1]])
    result = function(features, scale, tf.convert_to_tensor(offset))
    return tf.reshape(result, [-1, *x.shape[1:]]) if x.shape.rank > 2 else result


def fused_normalized(x, scale, offset, epsilon):
    """Returns the layer norm of `x`, of any floating dtype, in this dtype; see `normalized`.

    XLA computes the norm and its gradient; see `engine.models.fused_passes`. Of the forward pass,
    `x`, and mean and deviation of each position are kept.
    """

    @tf.custom_gradient
    def function(x, scale, offset):
        y, mean, inverse = compiled(_normalize, epsilon=epsilon)(x, scale, offset)
        gradient = compiled(_normalize_gradient)
        return y, lambda upstream: gradient(upstream, x, mean, inverse, scale)

    return function(x, scale, offset)


def _normalize(x, scale, offset, epsilon):
    """Returns the layer norm of `x`, and mean and inverse of the deviation, [positions, 1]."""
    wide = _as_matrix(x)
    mean = _row_mean(wide)
    centred = wide - mean
    inverse = tf.math.rsqrt(_row_mean(tf.square(centred)) + epsilon)
    y = centred * inverse * scale + offset
    return tf.reshape(tf.cast(y, x.dtype), x.shape), mean, inverse


def _normalize_gradient(upstream, x, mean, inverse, scale):
    """Returns the gradients of `x`, scale and offset."""
    unit, wide = (_as_matrix(x) - mean) * inverse, _as_matrix(upstream)
    slope = wide * scale
    of_x = (slope - _row_mean(slope) - unit * _row_mean(slope * unit)) * inverse
    of_x = tf.reshape(tf.cast(of_x, x.dtype), x.shape)
    return of_x, tf.reduce_sum(wide * unit, 0), tf.reduce_sum(wide, 0)


def _as_matrix(x):
    return tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]])


def _row_mean(x):
    """Returns the mean of each row, [rows, 1]: XLA adds a product's terms side by side."""
    return tf.matmul(x, tf.ones([x.shape[1], 1])) / x.shape[1]
