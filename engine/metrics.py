"""Explicit sums and counts, and the means they give.

Sums over examples are float32 [2 + metrics]: loss, each metric of the task, examples. A training
step's are two longer: norm of the gradient, and 1 for the step. They are added up in float64,
where counts stay exact to 2^53 and a mean over an epoch does not drift.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.task import Scores


def size(metrics: Sequence[str]) -> int:
    """Length of the vector of sums for a task with these metrics."""
    return len(metrics) + 2


def masked_sums(scores: Scores, mask: tf.Tensor) -> tf.Tensor:
    """Sums of one replica's rows, float32 [2 + metrics]; padding adds nothing, not even a nan.

    Args:
      scores: of each row.
      mask: float32 [rows], 1 an example, 0 padding.
    """
    values = tf.stack([scores.losses, *scores.metrics, mask])
    return tf.reduce_sum(tf.where(mask > 0, values, 0.0), axis=1)


def step_sums(sums: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    """A training step's sums, float32 [4 + metrics]: those of its examples, norm, 1."""
    return tf.concat([sums, [norm, 1.0]], 0)


def step_watched(sums: tf.Tensor) -> tf.Tensor:
    """What the guard looks at, of a training step's sums: mean loss and norm, float32 [2]."""
    return tf.stack([sums[0] / sums[-3], sums[-2]])


def step_means(sums: np.ndarray, metrics: Sequence[str]) -> dict[str, float | int]:
    """`means` over the examples of some training steps, and "gradient_norm" over those steps."""
    *of_examples, norms, steps = sums.tolist()
    norm = norms / steps if steps else math.nan
    return {**_means(of_examples, metrics), "gradient_norm": norm}


def means(sums: np.ndarray, metrics: Sequence[str]) -> dict[str, float | int]:
    """{"loss", each metric, "examples"} from float64 sums; the means are nan for no examples."""
    return _means(sums.tolist(), metrics)


def _means(sums: Sequence[float], metrics: Sequence[str]) -> dict[str, float | int]:
    examples = round(sums[-1])
    values = (each / examples if examples else math.nan for each in sums[:-1])
    return {**dict(zip(("loss", *metrics), values, strict=True)), "examples": examples}


def brief(values: Mapping[str, float | int]) -> str:
    """A few words for a line of progress: `loss 0.0312, accuracy 98.97%`."""
    words = []
    for name, value in values.items():
        if name == "accuracy":
            words.append(f"accuracy {value:.2%}")
        elif name not in ("examples", "gradient_norm"):
            words.append(f"{name} {value:.4f}")
    return ", ".join(words)


def jsonable(value: Any) -> Any:
    """JSON has no nan and no infinity: null says so to every reader. Mappings go through whole."""
    if isinstance(value, Mapping):
        return {name: jsonable(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
