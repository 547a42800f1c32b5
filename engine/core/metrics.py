"""Sums of losses and metrics, and the means computed from them.

Sums over examples are float32 [2 + metrics]: the loss, each metric of the task, and the number of
examples. Those of a training step are float32 [4 + metrics]: these, the gradient norm, and 1. Over
steps they are added in float64, in which counts are exact up to 2^53.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.tasks.classification import Scores
from engine.tasks.registry import is_percentage


def size(metrics: Sequence[str]) -> int:
    """Returns the length of the vector from `masked_sums` for a task with these metrics."""
    return len(metrics) + 2


def masked_sums(scores: Scores, mask: tf.Tensor) -> tf.Tensor:
    """Returns the sums of loss, each metric and mask over a micro-batch, float32 [2 + metrics].

    The mask, float32 [rows], is 0 in padding rows, which add nothing, even if their loss is nan.
    """
    values = tf.stack([scores.losses, *scores.metrics, mask])
    return tf.reduce_sum(tf.where(mask > 0, values, 0.0), axis=1)


def step_sums(sums: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    """Returns a step's sums, float32 [4 + metrics]: `sums`, the gradient norm, 1 (one step)."""
    return tf.concat([sums, [norm, 1.0]], 0)


def step_watched(sums: tf.Tensor) -> tf.Tensor:
    """Returns mean loss and gradient norm of one step, float32 [2], from its `step_sums`."""
    return tf.stack([sums[0] / sums[-3], sums[-2]])


def step_means(sums: np.ndarray, metrics: Sequence[str]) -> dict[str, float | int]:
    """Returns `means`, and the mean "gradient_norm" of steps, from their summed `step_sums`."""
    norms, steps = sums[-2:].tolist()
    norm = norms / steps if steps else math.nan
    return {**means(sums[:-2], metrics), "gradient_norm": norm}


def means(sums: np.ndarray, metrics: Sequence[str]) -> dict[str, float | int]:
    """Returns mean "loss" and metrics (nan if 0 examples) and "examples", from `masked_sums`."""
    *totals, count = sums.tolist()
    examples = round(count)
    values = (each / examples if examples else math.nan for each in totals)
    return {**dict(zip(("loss", *metrics), values, strict=True)), "examples": examples}


def brief(values: Mapping[str, float | int]) -> str:
    """Formats loss and metrics for a progress line: `loss 0.0312, accuracy 98.97%`."""
    shown = (name for name in values if name not in ("examples", "gradient_norm"))
    return ", ".join(f"{name} {formatted(name, values[name])}" for name in shown)


def formatted(name: str, value: float) -> str:
    """Formats a value of a metric: `98.97%` if it is displayed as a percentage, else `0.0312`."""
    return f"{value:.2%}" if is_percentage(name) else f"{value:.4f}"


def jsonable(value: Any) -> Any:
    """Returns `value` with None for nan and infinity, which JSON lacks, also in nested mappings."""
    if isinstance(value, Mapping):
        return {name: jsonable(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
