"""Metrics computed from sums over examples.

A metric computes a vector of sums, of fixed length, from its arguments. The engine adds the vectors
of micro-batches, replicas and batches, and the metric computes its value from the total. So the
value depends neither on the division into batches nor on the number of devices, up to rounding
(laws L2, L7 and L8).

Most metrics have the names and arguments of Keras metrics: labels, then predictions. Both have a
first axis of rows. If they have more axes, as masks of images do, each position counts equally. An
optional last argument gives a weight for each position, for example 0 for a position to ignore.

For a metric that cannot be computed from sums, use `collected`: the value is a NumPy function of
all examples of a split.
"""

from __future__ import annotations

from engine.tasks.metrics.base import BitsPerToken, Mean, MeanOfFunction, Metric, Perplexity, Ratio
from engine.tasks.metrics.calibration import CalibrationError
from engine.tasks.metrics.classification import (
    F1,
    Accuracy,
    BalancedAccuracy,
    CohenKappa,
    MeanIoU,
    Precision,
    Recall,
    TopK,
)
from engine.tasks.metrics.collection import collected
from engine.tasks.metrics.curves import AUC
from engine.tasks.metrics.regression import (
    R2,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
)

__all__ = [
    "AUC",
    "F1",
    "R2",
    "Accuracy",
    "BalancedAccuracy",
    "BitsPerToken",
    "CalibrationError",
    "CohenKappa",
    "Mean",
    "MeanAbsoluteError",
    "MeanIoU",
    "MeanOfFunction",
    "MeanSquaredError",
    "Metric",
    "Perplexity",
    "Precision",
    "Ratio",
    "Recall",
    "RootMeanSquaredError",
    "TopK",
    "collected",
]
