"""Metrics computed from sums over examples.

A metric turns its arguments into a vector of sums of fixed length. The engine adds these vectors
over micro-batches, replicas and batches, and the metric turns the total into a number. So its value
depends neither on the division into batches nor on the number of devices (L2, L7, L8).

Metrics are named and called as those of Keras: with labels, then predictions. Both have a first
axis of rows. Where they have more axes, as masks of images have, each position counts alike. An
optional last argument gives a weight of each position, for example 0 where it is to be ignored.

What is no sum is a metric by `collected`: a function of all examples of a split, in NumPy.
"""

from __future__ import annotations

from engine.tasks.metrics.base import Mean, MeanOfFunction, Metric, Perplexity, Ratio
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
