"""Registries of tasks and metrics, by the names that `--task` and `--metrics` accept::

    @METRICS.register
    def margin(labels, logits):  # a value of each row, float32 [rows]; its mean is reported
        return tf.math.top_k(logits, 2).values[:, 0] - tf.math.top_k(logits, 2).values[:, 1]

    @METRICS.register
    def weighted_f1(classes):  # a factory of a metric
        return MyF1(classes)

An entry of `METRICS` is a function of labels, int32 [rows], and logits, float32 [rows, classes]; or
a class of `Metric`, or a function that returns one, whose only parameter, if any, is `classes`, the
number of classes; or a `Metric`. This module imports no TensorFlow, so that invalid names are
rejected at once.
"""

from __future__ import annotations

from engine.config.registry import Registry

TASKS = Registry(
    "task",
    {"classification": "engine.tasks.classification:Classification"},
    passed=("metrics", "label_smoothing"),
)

METRICS = Registry(
    "metric",
    {
        "accuracy": "engine.tasks.metrics:Accuracy",
        "top_3": "engine.tasks.classification:top_3",
        "top_5": "engine.tasks.classification:top_5",
        "balanced_accuracy": "engine.tasks.metrics:BalancedAccuracy",
        "precision": "engine.tasks.metrics:Precision",
        "recall": "engine.tasks.metrics:Recall",
        "f1": "engine.tasks.metrics:F1",
        "mean_iou": "engine.tasks.metrics:MeanIoU",
        "cohen_kappa": "engine.tasks.metrics:CohenKappa",
        "auc": "engine.tasks.classification:auc",
        "pr_auc": "engine.tasks.classification:pr_auc",
        "calibration_error": "engine.tasks.classification:calibration_error",
    },
)
