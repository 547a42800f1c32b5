"""Replacements of Keras's dropout and noise layers, which draw random numbers for each row.

A function takes the forward pass, the Keras layer, `layer.call`, and the arguments of `layer.call`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.models.keras_forward import Forward
from engine.models.stateless_random import MAX_DROPOUT_RATE, StatelessRNG

SPATIAL = (
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


class _Draw(NamedTuple):
    """Random numbers that a layer needs: `features` numbers for each row of the micro-batch."""

    noise: StatelessRNG
    stream: int
    rows: Any
    features: int
    shape: list[Any]  # of all numbers, [first axis, ...], which broadcasts to the layer's input


def _draw(forward: Forward, layer: Any, x: Any, noise_shape: Any = None) -> _Draw | None:
    """Returns what a layer needs to draw random numbers for input `x`; None if Keras draws them.

    The Keras layer draws the numbers itself if they do not belong to single rows of the batch, if
    the layer is called in a nested graph, for which an error message is added to
    `forward.refusals`, or if the context has no `noise`.

    Args:
      forward: forward pass, which counts the call of the layer.
      layer: Keras layer.
      x: input of the layer.
      noise_shape: shape of the numbers, with None for a side of `x`; by default, the shape of `x`.
    """
    repeats = forward.repeats(x)
    shape = list(x.shape) if noise_shape is None else list(noise_shape)
    if repeats is None or len(shape) != x.shape.rank or not forward.context.noise:
        return None
    shape = [side if ours is None else ours for ours, side in zip(shape, x.shape, strict=True)]
    if shape[0] != x.shape[0] or None in shape[1:]:  # one mask for all rows, or any length
        return None
    if not forward.is_inside(layer):
        return None
    features = repeats * math.prod(shape[1:])
    shape = [tf.shape(x)[0], *shape[1:]]
    return _Draw(forward.context.noise, forward.stream(layer), forward.rows, features, shape)


def dropout(forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = False):
    """Computes dropout, also of whole channels, with random numbers for each row."""
    if not training or not 0 < layer.rate <= MAX_DROPOUT_RATE:
        return own(inputs, training=training)
    noise_shape = layer.noise_shape
    if isinstance(layer, SPATIAL):
        noise_shape = [None, *layer._get_noise_shape(inputs)[1:]]
    draw = _draw(forward, layer, inputs, noise_shape)
    if draw is None:
        return own(inputs, training=training)
    mask = draw.noise.dropout(draw.stream, draw.rows, draw.features, layer.rate, inputs.dtype)
    return inputs * tf.reshape(mask, draw.shape)


def _normal(draw: _Draw, dtype: tf.DType) -> tf.Tensor:
    """Returns standard normal numbers, `dtype` of shape `draw.shape`, by Box and Muller (1958)."""
    uniform = draw.noise.uniform(draw.stream, draw.rows, 2 * draw.features)
    radius = tf.sqrt(-2 * tf.math.log(1 - uniform[:, : draw.features]))
    normal = radius * tf.cos(2 * math.pi * uniform[:, draw.features :])
    return tf.cast(tf.reshape(normal, draw.shape), dtype)


def gaussian_noise(forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = False):
    """Adds normal noise, with random numbers for each row."""
    draw = _draw(forward, layer, inputs) if training and layer.stddev > 0 else None
    if draw is None:
        return own(inputs, training=training)
    return inputs + layer.stddev * _normal(draw, inputs.dtype)


def gaussian_dropout(
    forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = False
):
    """Multiplies by normal noise of mean 1, with random numbers for each row."""
    draw = _draw(forward, layer, inputs) if training and 0 < layer.rate < 1 else None
    if draw is None:
        return own(inputs, training=training)
    deviation = math.sqrt(layer.rate / (1 - layer.rate))
    return inputs * (1 + deviation * _normal(draw, inputs.dtype))


def alpha_dropout(forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = False):
    """Computes alpha dropout, with random numbers for each row."""
    draw = None
    if training and 0 < layer.rate < 1:
        draw = _draw(forward, layer, inputs, layer.noise_shape)
    if draw is None:
        return own(inputs, training=training)
    uniform = draw.noise.uniform(draw.stream, draw.rows, draw.features)
    kept = tf.cast(tf.reshape(uniform, draw.shape) >= layer.rate, inputs.dtype)
    # Klambauer et al. 2017, "Self-normalizing neural networks": what is dropped becomes the
    # negative saturation of SELU, then mean and variance are restored.
    saturation = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
    a = ((1 - layer.rate) * (1 + layer.rate * saturation**2)) ** -0.5
    b = -a * saturation * layer.rate
    return a * (inputs * kept + saturation * (1 - kept)) + b
