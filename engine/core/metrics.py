"""Sums of losses and metrics over examples, and the values computed from them.

The sums are one vector: the sum of weight * loss, the sum of the weights, the number of examples,
and the sums of each metric of the task. Without weights from the task, each weight is 1. The vector
of a training step has two more elements, the gradient norm and 1. Vectors of steps are added in
float64, in which counts are exact up to 2^53.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.tasks.metrics import Metric
from engine.tasks.metrics.collection import Collected
from engine.tasks.task import TaskOutput

Metrics = Mapping[str, Metric]
_LOSS, _WEIGHT, _EXAMPLES, _FIRST_METRIC = 0, 1, 2, 3


def summed(metrics: Metrics) -> Metrics:
    """Returns the metrics that are computed from sums: all but those of `tl.metrics.collected`."""
    return {name: each for name, each in metrics.items() if not isinstance(each, Collected)}


def size(metrics: Metrics) -> int:
    """Returns the length of the vector of sums for a task with these metrics."""
    return _FIRST_METRIC + sum(metric.size for metric in metrics.values())


def dtype(metrics: Metrics) -> tf.DType:
    """Returns the dtype of the sums of one batch: float64 if a metric needs it, else float32."""
    return tf.float64 if any(metric.float64 for metric in metrics.values()) else tf.float32


def zeros(metrics: Metrics) -> tf.Tensor:
    """Returns the vector of sums over no examples: zeros [`size`] of `dtype`."""
    return tf.zeros([size(metrics)], dtype(metrics))


def masked_sums(output: TaskOutput, mask: tf.Tensor, metrics: Metrics) -> tf.Tensor:
    """Returns the vector of sums over the rows of a micro-batch, [`size`] of `dtype`.

    Padding rows add nothing, even if their loss is nan.

    Args:
      output: output of the task for the micro-batch.
      mask: float32 [rows], 1 for an example and 0 for padding.
      metrics: all metrics of the task, by name.

    Raises:
      ValueError: if the names of the metrics in the output differ from those in `metrics`, or if a
        metric fails or returns sums of another shape than [metric.size].
    """
    if set(output.metrics) != set(metrics):
        ours, theirs = (", ".join(each) or "none" for each in (metrics, output.metrics))
        raise ValueError(f"it has the metrics {ours}, and returns arguments of {theirs}")
    losses, weights, valid = tf.cast(output.losses, tf.float32), mask, mask > 0
    if output.weights is not None:
        weights = tf.where(valid, tf.cast(output.weights, tf.float32), 0.0)
        losses = losses * weights
    rows = tf.where(valid, tf.stack([losses, weights, mask]), 0.0)
    sums = [tf.reduce_sum(rows, axis=1)]
    for name, metric in summed(metrics).items():
        arguments = [without_padding(valid, each) for each in output.metrics[name]]
        sums.append(_sums_of(name, metric, tf.cast(rows[_WEIGHT], tf.float64), arguments))
    return tf.concat([tf.cast(each, dtype(metrics)) for each in sums], 0)


def _sums_of(
    name: str, metric: Metric, weights: tf.Tensor, arguments: Sequence[tf.Tensor]
) -> tf.Tensor:
    """Returns the sums of a metric over the rows of a micro-batch, [metric.size].

    Args:
      name: name of the metric, for the error message.
      metric: the metric.
      weights: weights of the rows, float64 [rows].
      arguments: arguments of the metric, [rows, ...] each.

    Raises:
      ValueError: if the metric raises any exception, or returns sums of another shape.
    """
    try:
        sums = metric.sums(weights, *arguments)
        sums.shape.assert_is_compatible_with([metric.size])
    except Exception as error:  # TensorFlow and Python raise errors of several types here
        shapes = ", ".join(str(each.shape.as_list()) for each in arguments) or "none"
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"metric {name} of tensors of shapes {shapes}: {reason}") from error
    return sums


def without_padding(valid: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns `rows`, [rows, ...], with zeros where `valid`, bool [rows], is False."""
    valid = tf.reshape(valid, [-1, *[1] * (rows.shape.rank - 1)])
    return tf.where(valid, rows, tf.zeros([], rows.dtype))


def mean_weight(sums: tf.Tensor) -> tf.Tensor:
    """Returns the mean weight of the examples, float32 [], from the vector of sums."""
    return tf.cast(sums[_WEIGHT] / sums[_EXAMPLES], tf.float32)


def step_sums(sums: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    """Returns the vector of sums of a training step: `sums`, the gradient norm and 1."""
    return tf.concat([sums, tf.cast([norm, 1.0], sums.dtype)], 0)


def step_watched(sums: tf.Tensor) -> tf.Tensor:
    """Returns the mean loss and gradient norm of a step for the bad-step detector, float32 [2].

    `sums` is the result of `step_sums`.
    """
    return tf.cast(tf.stack([sums[_LOSS] / sums[_WEIGHT], sums[-2]]), tf.float32)


def step_means(sums: np.ndarray, metrics: Metrics) -> dict[str, float | int]:
    """Returns the result of `means`, and "gradient_norm", the mean of the gradient norm over steps.

    Args:
      sums: total of `step_sums` over training steps, float64; over no steps, the loss and the
        gradient norm are nan.
      metrics: all metrics of the task, by name.
    """
    norms, steps = sums[-2:].tolist()
    norm = norms / steps if steps else math.nan
    return {**means(sums[:-2], metrics), "gradient_norm": norm}


def means(
    sums: np.ndarray, metrics: Metrics, collected: Mapping[str, float] | None = None
) -> dict[str, float | int]:
    """Returns the mean loss, the values of the metrics and the number of examples, by name.

    Args:
      sums: total of `masked_sums`, float64 [`size`].
      metrics: all metrics of the task, by name.
      collected: values of the collected metrics by name; None or empty: these metrics are left out.

    Returns:
      "loss", the metrics by name, and "examples". The loss is nan if the sum of the weights is 0.
    """
    weight = float(sums[_WEIGHT])
    values: dict[str, float | int] = {"loss": float(sums[_LOSS]) / weight if weight else math.nan}
    first = _FIRST_METRIC
    for name, metric in (metrics if collected else summed(metrics)).items():
        if collected and name in collected:
            values[name] = collected[name]
        else:
            values[name] = metric.result(sums[first : first + metric.size])
        first += metric.size
    return {**values, "examples": round(float(sums[_EXAMPLES]))}


def brief(values: Mapping[str, float | int], metrics: Metrics) -> str:
    """Formats loss and metrics for a progress line, such as `loss 0.0312, accuracy 98.97%`.

    The line has all `values` but "examples" and "gradient_norm".
    """
    shown = (name for name in values if name not in ("examples", "gradient_norm"))
    return ", ".join(f"{name} {formatted(name, values[name], metrics)}" for name in shown)


def formatted(name: str, value: float, metrics: Metrics) -> str:
    """Formats a value: 0.9897 as `98.97%` for a percentage metric, otherwise as `0.9897`."""
    return f"{value:.2%}" if is_percentage(name, metrics) else f"{value:.4f}"


def is_percentage(name: str, metrics: Metrics) -> bool:
    """Returns whether `name` is a metric of `metrics` that is displayed as a percentage."""
    return name in metrics and metrics[name].percentage


def jsonable(value: Any) -> Any:
    """Returns `value` with None for nan and infinity, which JSON lacks.

    Mappings are converted to dicts and lists to lists, recursively.
    """
    if isinstance(value, Mapping):
        return {name: jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [jsonable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
