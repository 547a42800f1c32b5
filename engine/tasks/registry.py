"""Registries of tasks, by the names that `--task` accepts, and of metrics, by those of `--metrics`.

A task is registered as a subclass of `Task`, or as a function that returns a `Task`::

    @TASKS.register
    class FocalLoss(Classification):  # --task=focal_loss --task.gamma=2
        def __init__(self, metrics, *, gamma: float = 2.0): ...

The class or function may have any of these parameters, whose values are those of the options:
`metrics` (the metrics of `--metrics`, by name), `label_smoothing`, `regression_loss`, `classes`,
`class_weights` and `ignore_label`. Further keyword-only parameters become flags.

A metric is one of:

- a function of the metric arguments of the task, such as labels, int32 [rows], and logits, float32
  [rows, classes], that returns a value for each row; the weighted mean of the values is reported;
- a subclass of `Metric`, which is called with the number of classes if it has a parameter
  `classes`, else without arguments;
- a function that returns a `Metric`; it has no parameter but `classes`, or none;
- a `Metric`.

For example::

    @METRICS.register
    def margin(labels, logits):
        return tf.math.top_k(logits, 2).values[:, 0] - tf.math.top_k(logits, 2).values[:, 1]

    @METRICS.register
    def weighted_f1(classes):
        return MyF1(classes)

This module does not import TensorFlow, so that invalid names are rejected at once.
"""

from __future__ import annotations

from engine.config.registry import Registry

TASKS = Registry(
    "task",
    {
        "classification": "engine.tasks.classification:Classification",
        "language_model": "engine.tasks.language_model:LanguageModel",
        "multi_label": "engine.tasks.multi_label:MultiLabel",
        "regression": "engine.tasks.regression:Regression",
        "segmentation": "engine.tasks.segmentation:Segmentation",
    },
    passed=(
        "metrics",
        "label_smoothing",
        "regression_loss",
        "classes",
        "class_weights",
        "ignore_label",
    ),
)

REGRESSION_LOSSES = ("mean_squared_error", "mean_absolute_error", "huber")

# The metrics of a task if `--metrics` names none.
DEFAULT_METRICS = {
    "classification": "accuracy",
    "language_model": "perplexity,bits_per_character",
    "multi_label": "accuracy",
    "regression": "mean_absolute_error",
    "segmentation": "mean_iou",
}

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
        "mean_squared_error": "engine.tasks.metrics:MeanSquaredError",
        "root_mean_squared_error": "engine.tasks.metrics:RootMeanSquaredError",
        "mean_absolute_error": "engine.tasks.metrics:MeanAbsoluteError",
        "r2": "engine.tasks.metrics:R2",
        "perplexity": "engine.tasks.metrics:Perplexity",
        "bits_per_character": "engine.tasks.metrics:BitsPerToken",
    },
)
