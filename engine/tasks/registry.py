"""The metrics of each example by name::

    @METRICS.register
    def top_3(logits, labels):
        return tf.cast(tf.math.in_top_k(labels, logits, 3), tf.float32)

A factory here is the metric itself: a function of the logits, float32 [rows, classes], and the
labels, int32 [rows], to a value of each row, float32 [rows]; or a `Metric` of such a function. This
module imports no TensorFlow, so that the names are known at once.
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

    Attributes:
      compute: function of the logits, float32 [rows, classes], and the labels, int32 [rows], to a
        value of each row, float32 [rows]; that of padding may be any value.
      better: "higher" or "lower"; which values `--monitor` prefers.
      percentage: whether it is displayed as a percentage.
    """

    compute: Callable[[Any, Any], Any]
    better: str = "higher"
    percentage: bool = False


def metric(name: str) -> Metric:
    """Returns a registered metric.

    Raises:
      ValueError: for an unknown name.
    """
    found = METRICS[name]
    return found if isinstance(found, Metric) else Metric(found)


def is_percentage(name: str) -> bool:
    """Returns whether a metric is displayed as a percentage; not if it is not registered."""
    return name in METRICS and metric(name).percentage


def higher_is_better(name: str) -> bool:
    """Returns whether `--monitor` prefers high values; not of the loss, and if not registered."""
    return name in METRICS and metric(name).better == "higher"
