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
    """Returns the length of the vector of sums for a task with these metrics."""
    return len(metrics) + 2


def masked_sums(scores: Scores, mask: tf.Tensor) -> tf.Tensor:
    """Returns the sums over the rows of a micro-batch, float32 [2 + metrics].

    Padding, where the mask is 0, adds nothing, even if its loss is nan.
    """
    values = tf.stack([scores.losses, *scores.metrics, mask])
    return tf.reduce_sum(tf.where(mask > 0, values, 0.0), axis=1)


def step_sums(sums: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    """Returns the sums of a training step, float32 [4 + metrics]: `sums`, the gradient norm, 1."""
    return tf.concat([sums, [norm, 1.0]], 0)


def step_watched(sums: tf.Tensor) -> tf.Tensor:
    """Returns a step's mean loss and gradient norm for the bad-step detector, float32 [2]."""
    return tf.stack([sums[0] / sums[-3], sums[-2]])


def step_means(sums: np.ndarray, metrics: Sequence[str]) -> dict[str, float | int]:
    """Returns `means` from the sums of training steps, and "gradient_norm", the mean over steps."""
    norms, steps = sums[-2:].tolist()
    norm = norms / steps if steps else math.nan
    return {**means(sums[:-2], metrics), "gradient_norm": norm}


def means(sums: np.ndarray, metrics: Sequence[str]) -> dict[str, float | int]:
    """Returns mean loss and metrics, and "examples", from float64 sums; nan without examples."""
    *totals, count = sums.tolist()
    examples = round(count)
    values = (each / examples if examples else math.nan for each in totals)
    return {**dict(zip(("loss", *metrics), values, strict=True)), "examples": examples}


def brief(values: Mapping[str, float | int]) -> str:
    """Formats metrics for a progress line: `loss 0.0312, accuracy 98.97%`."""
    shown = (name for name in values if name not in ("examples", "gradient_norm"))
    return ", ".join(f"{name} {formatted(name, values[name])}" for name in shown)


def formatted(name: str, value: float) -> str:
    """Formats a value of a metric: `98.97%` if it is displayed as a percentage, else `0.0312`."""
    return f"{value:.2%}" if is_percentage(name) else f"{value:.4f}"


def jsonable(value: Any) -> Any:
    """Replaces nan and infinity, which JSON lacks, with None (null), in nested mappings too."""
    if isinstance(value, Mapping):
        return {name: jsonable(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
