"""Replacements of Keras's dropout, noise, batch norm and max pool while a Keras model is called.

Keras's layers draw random numbers for a whole micro-batch, and count padding as examples. The
replacements draw random numbers for each row of the global batch, and take means over the valid
rows of all replicas, so that a step is the same on any number of devices.
"""

from __future__ import annotations

import collections
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.models.base import ForwardContext
from engine.models.batch_normalization import batch_normalized
from engine.models.channel_passes import NORMALIZED_DTYPES, ValidRows
from engine.models.max_pool import max_pool
from engine.models.stateless_random import MAX_DROPOUT_RATE, StatelessRNG


class Forward:
    """State of one forward pass of a Keras model; replaced layers get it from `current`.

    Args:
      context: context of the forward pass.
      indices: index of each layer in the model, by `id`.
      rows: number of rows of the micro-batch, int or int32 [].
    """

    def __init__(self, context: ForwardContext, indices: dict[int, int], rows: Any) -> None:
        self.context, self.rows = context, rows
        self.scope: Any = None  # in which Keras variables have values, a keras.StatelessScope
        self.refusals: list[str] = []  # reasons why the model cannot be trained, one line each
        self.weights: dict[int, tf.Tensor] = {}  # of updated statistics, by `id` of the variable
        # Their values of this micro-batch alone, unless a layer is called more than once.
        self.batches: dict[int, tf.Tensor] = {}
        self._indices = indices
        self._calls: collections.Counter[int] = collections.Counter()
        self._row_weights: dict[tuple[int, int], tuple[tf.Tensor, tf.Tensor]] = {}
        self._graph = tf.compat.v1.get_default_graph()

    def again(self, context: ForwardContext, calls: Mapping[int, int]) -> Forward:
        """Returns the forward pass of a second call of a layer, in the graph of the caller.

        Args:
          context: context of the second call.
          calls: result of `calls` before the first call.
        """
        forward = Forward(context, self._indices, self.rows)
        forward._calls.update(calls)
        return forward

    @property
    def calls(self) -> dict[int, int]:
        """Number of calls of each layer that draws random numbers so far, by `id` of the layer."""
        return dict(self._calls)

    def is_inside(self, layer: Any) -> bool:
        """Returns whether the layer is called directly in the graph of the forward pass.

        If not, adds an error message to `refusals`: in a nested graph, such as that of a loop,
        random numbers would repeat, and statistics could not be returned.
        """
        if tf.compat.v1.get_default_graph() is self._graph:
            return True
        self.refusals.append(
            f"{layer.name} ({type(layer).__name__}) is called in a tf.function, loop or condition"
            " of its own: call it outside of that"
        )
        return False

    def stream(self, layer: Any) -> int:
        """Returns the random number stream of a layer's next call, and counts the call.

        No other call in the forward pass has the same stream.
        """
        call = self._calls[id(layer)]
        self._calls[id(layer)] += 1
        return self._indices[id(layer)] + call * len(self._indices)

    def row_weights(self, rank: int, repeats: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns row weights, 1 if valid and 0 for padding, and the number of valid rows.

        Each row of the micro-batch counts as `repeats` consecutive rows. The number is float32 [].
        The weights are float32 [rows * repeats, 1, ...], with `rank` axes; if the context has no
        mask, they are a single 1, with `rank` axes.
        """
        key = rank, repeats
        if key not in self._row_weights:
            mask = self.context.mask
            if mask is None:
                self._row_weights[key] = (
                    tf.ones([1] * rank),
                    tf.cast(self.rows * repeats, tf.float32),
                )
            else:
                repeated = tf.repeat(mask, repeats) if repeats > 1 else mask
                weights = tf.reshape(repeated, [-1] + [1] * (rank - 1))
                self._row_weights[key] = weights, tf.reduce_sum(repeated)
        return self._row_weights[key]

    def repeats(self, x: Any) -> int | None:
        """Returns how often each row of the micro-batch occurs in the first axis of `x`, or None.

        The result is 1 if the length of the axis or the number of rows is not static. It is None
        for a scalar, and for a length that is 0 or not a multiple of the number of rows.
        """
        if x.shape.rank == 0:
            return None
        first, rows = x.shape[0], self.rows
        if isinstance(rows, int) and first is not None:
            return first // rows if first and first % rows == 0 else None
        return 1 if first is None or not isinstance(rows, int) else None


_local = threading.local()  # A strategy calls each replica in a thread of its own.


def current() -> Forward | None:
    """Returns the forward pass that this thread is in; None outside of a forward pass."""
    return getattr(_local, "forward", None)


class entered:  # noqa: N801
    """Context manager that makes a forward pass the one that `current` returns in this thread."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def __enter__(self) -> Forward:
        self._outer, _local.forward = current(), self._forward
        return self._forward

    def __exit__(self, *_: Any) -> None:
        _local.forward = self._outer


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


def _dropout(forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = False):
    if not training or not 0 < layer.rate <= MAX_DROPOUT_RATE:
        return own(inputs, training=training)
    noise_shape = layer.noise_shape
    if isinstance(layer, _SPATIAL):
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


def _gaussian_noise(
    forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = False
):
    draw = _draw(forward, layer, inputs) if training and layer.stddev > 0 else None
    if draw is None:
        return own(inputs, training=training)
    return inputs + layer.stddev * _normal(draw, inputs.dtype)


def _gaussian_dropout(
    forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = False
):
    draw = _draw(forward, layer, inputs) if training and 0 < layer.rate < 1 else None
    if draw is None:
        return own(inputs, training=training)
    deviation = math.sqrt(layer.rate / (1 - layer.rate))
    return inputs * (1 + deviation * _normal(draw, inputs.dtype))


def _alpha_dropout(forward: Forward, layer: Any, own: Callable, inputs: Any, training: Any = False):
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
    all_valid = (mask is None and forward.context.mask is None) or len(forward.refusals) > refused
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


_SPATIAL = (
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_REPLACEMENTS: dict[Callable, Callable] = {
    keras.layers.Dropout.call: _dropout,
    **{each.call: _dropout for each in _SPATIAL},
    keras.layers.GaussianNoise.call: _gaussian_noise,
    keras.layers.GaussianDropout.call: _gaussian_dropout,
    keras.layers.AlphaDropout.call: _alpha_dropout,
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
