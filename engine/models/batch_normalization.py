"""Batch normalization as functions of tensors with gradients, for one replica and for several.

Where no other replica shares the micro-batch, on a CPU, it is one kernel backward, and as few
passes forward. Elsewhere, the moments of each replica and the normalization are two functions with
a gradient each, and the reduction over the replicas stands between them: one forward, one backward.
Padding changes the kernel only in the micro-batches that have some.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from engine.models import channel_passes as passes
from engine.models.base import ForwardContext
from engine.models.batch_moments import moments
from engine.models.channel_passes import ValidRows

_OF_PADDING = 1e30  # variance of a micro-batch without valid rows; its inverse root is no subnormal


def batch_normalized(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    rows: ValidRows,
    epsilon: float,
    context: ForwardContext,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes by the mean and the biased variance of the valid rows of all replicas.

    Args:
      x: float32, bfloat16 or float16 [rows, ..., channels].
      scale: float32 [channels].
      offset: float32 [channels].
      rows: the valid rows of `x`.
      epsilon: number that is added to the variance.
      context: context of the forward pass.

    Returns:
      The normalized `x`, of its dtype; the mean and the variance, float32 [channels]. On a single
      replica, mean and variance are constants for the gradient.
    """
    kernels = passes.uses_kernels(context.compiled)
    if kernels and context.is_alone:
        return _on_one_replica(x, scale, offset, rows, epsilon)
    mean, variance = _moments(x, rows, epsilon, kernels)
    if not context.is_alone:
        mean, variance = _of_all_replicas(mean, variance, rows.count, context)
    elif rows.mask is not None:
        variance = _finite_output(variance, rows.count)
    return _normalized(x, mean, variance, scale, offset, epsilon, kernels), mean, variance


def _normalized(
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float,
    kernels: bool,
) -> tf.Tensor:
    """Returns `channel_passes.normalize` of the arguments, with a gradient for each tensor."""

    @tf.custom_gradient
    def function(x, mean, variance, scale, offset):
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            of_x, of_scale, of_offset = passes.normalize_gradient(
                upstream, x, mean, variance, scale, epsilon, kernels
            )
            factor = tf.math.rsqrt(variance + epsilon)
            of_mean = -scale * factor * of_offset
            of_variance = -0.5 * tf.square(factor) * scale * of_scale
            return of_x, of_mean, of_variance, of_scale, of_offset

        return passes.normalize(x, mean, variance, scale, offset, epsilon, kernels), gradient

    return function(x, mean, variance, scale, offset)


def _moments(
    x: tf.Tensor, rows: ValidRows, epsilon: float, kernels: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the `moments` of this replica, with a gradient."""

    @tf.custom_gradient
    def function(x):
        mean, variance = moments(x, rows, epsilon, kernels)

        def gradient(of_mean: tf.Tensor, of_variance: tf.Tensor) -> tf.Tensor:
            return passes.moments_gradient(x, rows, mean, of_mean, of_variance, kernels)

        return (mean, variance), gradient

    return function(x)


def _of_all_replicas(
    mean: tf.Tensor, variance: tf.Tensor, local_count: tf.Tensor, context: ForwardContext
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and biased variance over all replicas from those of each, float32 [channels].

    In float64, the variance may be a difference of large numbers: float32 inputs have no digits
    that it would lose. `local_count` is the number of valid elements of a channel on this replica.
    """
    count, mean = tf.cast(local_count, tf.float64), tf.cast(mean, tf.float64)
    mean_square = tf.cast(variance, tf.float64) + tf.square(mean)
    sums, squares, count = context.all_reduce([count * mean, count * mean_square, count])
    mean = sums / tf.maximum(count, 1.0)
    variance = tf.maximum(squares / tf.maximum(count, 1.0) - tf.square(mean), 0.0)
    return tf.cast(mean, tf.float32), _finite_output(tf.cast(variance, tf.float32), count)


def _finite_output(variance: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns `variance`, or `_OF_PADDING` if `count`, the number of valid elements, is 0.

    Padding is normalized as well. Divided by the root of the epsilon, the rows of a micro-batch of
    padding alone would grow by a factor of up to 316 in each batch norm, to infinity after 16 of
    them, and the mask, a factor of 0, would make that nan. With a large variance they become 0.
    """
    return tf.where(count > 0, variance, _OF_PADDING)


def _on_one_replica(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, rows: ValidRows, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the results of `batch_normalized` if no other replica shares the micro-batch."""

    @tf.custom_gradient
    def function(x, scale, offset):
        def by_moments() -> tuple[tf.Tensor, ...]:
            mean, variance = moments(x, rows, epsilon, kernels=True)
            if rows.mask is not None:
                variance = _finite_output(variance, rows.count)
            y = passes.normalize(x, mean, variance, scale, offset, epsilon, kernels=True)
            return y, mean, variance

        def at_once() -> tuple[tf.Tensor, ...]:
            return passes.normalize_by_moments(x, rows, scale, offset, epsilon)

        if x.dtype == tf.float32:
            y, mean, variance = by_moments()
        else:
            y, mean, variance = _if_whole(rows, at_once, by_moments)

        def gradient(upstream: tf.Tensor, *_: Any) -> tuple[tf.Tensor, ...]:
            arguments = upstream, x, mean, variance, scale, epsilon

            def of_rows() -> tuple[tf.Tensor, ...]:
                of_x, of_scale, of_offset = passes.normalize_gradient(*arguments, kernels=True)
                factor = scale * tf.math.rsqrt(variance + epsilon)
                of_mean = -factor * of_offset
                of_variance = -0.5 * factor * tf.math.rsqrt(variance + epsilon) * of_scale
                of_x += passes.moments_gradient(x, rows, mean, of_mean, of_variance, kernels=True)
                return of_x, of_scale, of_offset

            return _if_whole(
                rows, lambda: passes.normalize_by_moments_gradient(*arguments), of_rows
            )

        return (y, tf.stop_gradient(mean), tf.stop_gradient(variance)), gradient

    return function(x, scale, offset)


def _if_whole(rows: ValidRows, whole: Any, partial: Any) -> Any:
    """Returns `whole()` if no row is padding, else `partial()`; chosen in the graph."""
    if rows.mask is None:
        return whole()
    return tf.cond(rows.all_valid(), whole, partial)
