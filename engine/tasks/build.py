"""Builds metrics by name."""

from __future__ import annotations

import inspect

from engine.config.registry import parameters
from engine.tasks.metrics import MeanOfFunction, Metric
from engine.tasks.registry import METRICS


def build_metric(name: str, classes: int) -> Metric:
    """Returns a new metric of a registered name, for a number of classes.

    Raises:
      ValueError: for an unknown name.
    """
    entry = METRICS[name]
    if isinstance(entry, Metric):
        return entry
    accepted = parameters(entry)
    if inspect.isclass(entry) or accepted <= {"classes"}:
        return entry(**({"classes": classes} if "classes" in accepted else {}))
    return MeanOfFunction(entry)


def is_percentage(name: str) -> bool:
    """Returns whether a metric is displayed as a percentage; False if it is not registered."""
    return name in METRICS and build_metric(name, 2).percentage
