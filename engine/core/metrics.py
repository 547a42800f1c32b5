"""Sums and counts of losses and metrics, and the means computed from them.

Sums over examples are float32 [2 + metrics]: the loss, each metric of the task, and the number of
examples. Sums of a training step are float32 [4 + metrics]: these, the gradient norm, and 1. They
are accumulated over steps in float64, in which counts are exact up to 2^53 and the rounding error
of a mean over an epoch is negligible.
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

    Args:
      scores: loss and metrics of each row.
      mask: 1 for an example, 0 for padding, float32 [rows]; padding adds nothing, even if its loss
        is nan.
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
    *of_examples, norms, steps = sums.tolist()
    norm = norms / steps if steps else math.nan
    return {**_means(of_examples, metrics), "gradient_norm": norm}


def means(sums: np.ndarray, metrics: Sequence[str]) -> dict[str, float | int]:
    """Returns mean loss and metrics, and "examples", from float64 sums; nan without examples."""
    return _means(sums.tolist(), metrics)


def _means(sums: Sequence[float], metrics: Sequence[str]) -> dict[str, float | int]:
    examples = round(sums[-1])
    values = (each / examples if examples else math.nan for each in sums[:-1])
    return {**dict(zip(("loss", *metrics), values, strict=True)), "examples": examples}


def brief(values: Mapping[str, float | int]) -> str:
    """Formats metrics for a progress line: `loss 0.0312, accuracy 98.97%`."""
    words = []
    for name, value in values.items():
        if name not in ("examples", "gradient_norm"):
            words.append(f"{name} {formatted(name, value)}")
    return ", ".join(words)


def formatted(name: str, value: float) -> str:
    """Formats a value of a metric: `98.97%` if it is displayed as a percentage, else `0.0312`."""
    return f"{value:.2%}" if is_percentage(name) else f"{value:.4f}"


def jsonable(value: Any) -> Any:
    """Replaces nan and infinity, which JSON lacks, with None (null), in nested mappings too."""
    if isinstance(value, Mapping):
        return {name: jsonable(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
