"""Replacements of Keras's dropout, noise, batch norm and max pool while a Keras model is called.

Keras's layers draw random numbers for a whole micro-batch, and count padding as examples. The
replacements draw random numbers for each row of the global batch, and take means over the valid
rows of all replicas, so that a step is the same on any number of devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from engine.models import keras_noise
from engine.models.batch_normalization import batch_normalized
from engine.models.channel_passes import NORMALIZED_DTYPES, ValidRows
from engine.models.keras_forward import Forward
from engine.models.max_pool import max_pool


def _batch_norm(
    forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = None, mask: Any = None
):
    if training and layer.trainable:
        if forward.is_inside(layer):
            return _normalized(forward, layer, inputs, mask)
        return own(inputs, training=training, mask=mask)
    mean, variance, scale, offset = _parameters(layer)
    axis = layer.axis % inputs.shape.rank
    fused = inputs.shape.rank == 4 and axis == 3 and not forward.context.training
    # cuDNN has no smaller epsilon, and in training, TensorFlow no deterministic gradient of this.
    if fused and layer.epsilon > 1.001e-5:
        ones, zeros = tf.ones_like(mean), tf.zeros_like(mean)
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ones if scale is None else scale,
            offset=zeros if offset is None else offset,
            mean=mean,
            variance=variance,
            epsilon=layer.epsilon,
            is_training=False,
        ).y
    return _scaled(layer, inputs, mean, variance, scale, offset)


def _parameters(layer: Any) -> tuple[Any, ...]:
    """Returns moving mean, moving variance, scale and offset of a batch norm, float32 [channels].

    A scale or offset that the layer does not have is None.
    """
    parts = layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta
    return tuple(None if part is None else _float32(part) for part in parts)


def _float32(variable: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def _scaled(layer: Any, inputs: Any, mean: Any, variance: Any, scale: Any, offset: Any) -> Any:
    """Normalizes inputs by mean and variance in float32; applies scale and offset unless None.

    Mean, variance, scale and offset are float32 [channels]. The result is in the compute dtype of
    the layer.
    """
    factor = tf.math.rsqrt(variance + layer.epsilon)
    factor = factor if scale is None else factor * scale
    shift = -mean * factor if offset is None else offset - mean * factor
    channels = _channels(layer, inputs)
    x = tf.cast(inputs, tf.float32) * channels(factor) + channels(shift)
    return tf.cast(x, layer.compute_dtype)


def _channels(layer: Any, inputs: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that reshapes [channels] so that it broadcasts to the layer's inputs."""
    rank = inputs.shape.rank
    if layer.axis % rank == rank - 1:
        return lambda x: x
    shape = [-1 if axis == layer.axis % rank else 1 for axis in range(rank)]
    return lambda x: tf.reshape(x, shape)


def _normalized(forward: Forward, layer: Any, inputs: Any, mask: Any) -> Any:
    """Normalizes inputs by mean and variance of the valid elements of all replicas.

    Assigns the new moving averages to the variables of the layer, which the scope records, and adds
    their weights, the number of valid elements per channel on this replica, to `forward.weights`,
    and the mean and the variance to `forward.batches`.
    """
    refused = len(forward.refusals)
    weights, local_count = _weights(forward, layer, inputs, mask)
    _, _, scale, offset = _parameters(layer)
    axes = list(range(inputs.shape.rank))
    axes.append(axes.pop(layer.axis))  # the channels last
    is_last = axes == sorted(axes)
    x = inputs if inputs.dtype in NORMALIZED_DTYPES else tf.cast(inputs, tf.float32)
    x = x if is_last else tf.transpose(x, axes)
    shape, channels = tf.shape(x), x.shape[-1:]
    if mask is not None:  # each position is a row of its own
        x = tf.reshape(x, [-1, *channels])
    whole = mask is None and forward.context.padding_mask is None
    all_valid = whole or len(forward.refusals) > refused
    y, mean, variance = batch_normalized(
        x,
        tf.ones(channels) if scale is None else scale,
        tf.zeros(channels) if offset is None else offset,
        ValidRows(None if all_valid else tf.reshape(weights, [-1]), local_count),
        layer.epsilon,
        forward.context,
    )
    _move(forward, layer, mean, variance, local_count)
    y = tf.reshape(y, shape) if mask is not None else y
    y = y if is_last else tf.transpose(y, sorted(axes, key=axes.__getitem__))
    return tf.ensure_shape(tf.cast(y, layer.compute_dtype), inputs.shape)


def _move(
    forward: Forward, layer: Any, mean: tf.Tensor, variance: tf.Tensor, local_count: tf.Tensor
) -> None:
    """Assigns new moving averages to the layer's variables, and records weights and batch values.

    The mean and the variance are of the micro-batch; `local_count` is the weight.
    """
    for average, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving, constant = _float32(average), tf.stop_gradient(batch)
        average.assign(moving + (1 - layer.momentum) * (constant - moving))
        if id(average) not in forward.weights:
            forward.batches[id(average)] = constant
        else:  # of a layer that is called again, which moves the value of the call before
            forward.batches.pop(id(average), None)
        forward.weights[id(average)] = local_count


def _weights(forward: Forward, layer: Any, inputs: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns weights, 1 for valid elements, else 0, and how many are valid per channel; float32.

    The weights have the rank of the inputs, and broadcast to the inputs; the number, float32 [], is
    that of this replica. If the first axis of the inputs is not that of the rows, or if there is a
    mask and the normalized axis is not the last, adds an error message to `forward.refusals` and
    returns ones for both. `mask`, bool or None, is that of Keras, for all axes of the inputs but
    the last.
    """
    repeats, rank, axis = forward.repeats(inputs), inputs.shape.rank, layer.axis % inputs.shape.rank
    if repeats is None:
        forward.refusals.append(
            f"{layer.name} ({type(layer).__name__}) normalizes a tensor whose first axis is not"
            f" that of the examples, {inputs.shape}: padding would count in its statistics"
        )
        return tf.ones([1] * rank), tf.ones([])
    weights, rows = forward.row_weights(rank, repeats)
    if mask is not None and axis != rank - 1:
        forward.refusals.append(
            f"{layer.name} ({type(layer).__name__}) gets a mask and normalizes axis {layer.axis}: "
            "with a mask, only the last axis can be normalized"
        )
        return tf.ones([1] * rank), tf.ones([])
    if mask is not None:  # of Keras, such as that of an embedding: all axes but the last
        weights = weights * tf.cast(mask, tf.float32)[..., tf.newaxis]
        return weights, tf.reduce_sum(weights)
    positions = [side for each, side in enumerate(inputs.shape) if each not in (0, axis)]
    if None in positions:
        elements = tf.size(inputs) // tf.shape(inputs)[0] // inputs.shape[axis]
        return weights, rows * tf.cast(elements, tf.float32)
    return weights, rows * math.prod(positions)


def _max_pool(forward: Forward, layer: Any, own: Callable, inputs: Any) -> Any:
    """Computes a max pool over one or two axes; by `max_pool` where XLA compiles a training step.

    Otherwise, and with channels first or a side that is not static, the Keras layer computes it;
    also other pools, which have the same method.
    """
    compiled = forward.context.compiled and forward.context.training
    known = layer.pool_mode == "max" and layer.data_format == "channels_last"
    if not (compiled and known and inputs.shape.rank < 5 and None not in inputs.shape[1:]):
        return own(inputs)
    size, stride, padding = layer.pool_size, layer.strides, layer.padding.upper()
    if inputs.shape.rank == 4:
        return max_pool(inputs, size, stride, padding)
    # A sequence is an image of one column.
    return max_pool(inputs[:, :, tf.newaxis], (*size, 1), (*stride, 1), padding)[:, :, 0]


_REPLACEMENTS: dict[Callable, Callable] = {
    keras.layers.Dropout.call: keras_noise.dropout,
    **{each.call: keras_noise.dropout for each in keras_noise.SPATIAL},
    keras.layers.GaussianNoise.call: keras_noise.gaussian_noise,
    keras.layers.GaussianDropout.call: keras_noise.gaussian_dropout,
    keras.layers.AlphaDropout.call: keras_noise.alpha_dropout,
    keras.layers.BatchNormalization.call: _batch_norm,
    keras.layers.MaxPooling1D.call: _max_pool,  # of pools over any number of axes
}


def replacement(layer: Any) -> Callable | None:
    """Returns the function to call in place of `layer.call`; None if the layer is not replaced.

    The function is called in a forward pass with the `Forward`, the layer, `layer.call` and the
    arguments of `layer.call`. A subclass that overrides `call`, or a batch norm with `renorm`, is
    not replaced.
    """
    if getattr(layer, "renorm", False):
        return None
    return _REPLACEMENTS.get(type(layer).call)
