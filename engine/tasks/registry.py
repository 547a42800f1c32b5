"""Registry of the metrics of each example, by name::

    @METRICS.register
    def top_3(logits, labels):
        return tf.cast(tf.math.in_top_k(labels, logits, 3), tf.float32)

An entry is the metric itself, not a factory: a function that takes logits, float32 [rows, classes],
and labels, int32 [rows], and returns a value of each row, float32 [rows]; or a `Metric` of such a
function. This module imports no TensorFlow, so that invalid names are rejected at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.config.registry import Registry

METRICS = Registry("metric", {"accuracy": "engine.tasks.classification:ACCURACY"})


@dataclass(frozen=True)
class Metric:
    """A metric of each example; the engine reports its mean over the examples.

    `compute` may return any value in padding rows. `better` is the direction that `--monitor`
    prefers, "higher" or "lower"; `percentage` is whether the metric is displayed as a percentage.
    """

    compute: Callable[[Any, Any], Any]
    better: str = "higher"
    percentage: bool = False


def metric(name: str) -> Metric:
    """Returns a registered metric; a plain function becomes a `Metric` with the defaults.

    Raises:
      ValueError: for an unknown name.
    """
    entry = METRICS[name]
    return entry if isinstance(entry, Metric) else Metric(entry)


def is_percentage(name: str) -> bool:
    """Returns whether a metric is displayed as a percentage; False if it is not registered."""
    return name in METRICS and metric(name).percentage


def higher_is_better(name: str) -> bool:
    """Returns whether `--monitor` prefers high values; False for a name that is no metric."""
    return name in METRICS and metric(name).better == "higher"
