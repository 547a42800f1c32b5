"""Classification: one class of several for each example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from engine.tasks.cross_entropy import cross_entropy
from engine.tasks.metrics import AUC, Accuracy, CalibrationError, Metric, TopK
from engine.tasks.task import TaskOutput
from pipelines import Batch


class Classification:
    """Classification with softmax cross-entropy in float32, and metrics of each example.

    Targets are labels, int32 [rows], or distributions over the classes, float32 [rows, classes],
    as mixup creates them. For a distribution, metrics use the most probable class as the label.

    Args:
      smoothing: label smoothing in training: the probability taken from the target and spread
        evenly over all classes (Szegedy et al. 2016, "Rethinking the Inception architecture").
        Evaluation does not smooth, so that its loss is comparable between runs.
      metrics: metrics of labels, int32 [rows], and logits, float32 [rows, classes], by name; None:
        the accuracy.
    """

    def __init__(self, smoothing: float = 0.0, metrics: Mapping[str, Metric] | None = None) -> None:
        self._smoothing = smoothing
        self.metrics = {"accuracy": Accuracy()} if metrics is None else metrics

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns the cross-entropy of each row; `model` returns logits [rows, classes]."""
        logits = tf.cast(model(batch.inputs, context), tf.float32)
        targets = labels = batch.targets
        if targets.dtype.is_floating:
            labels = tf.argmax(targets, axis=-1, output_type=tf.int32)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        else:
            losses = cross_entropy(logits, targets)
        if self._smoothing and context.training:
            # The cross-entropy is linear in the target.
            spread = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
            losses = (1 - self._smoothing) * losses + self._smoothing * spread
        return TaskOutput(losses, dict.fromkeys(self.metrics, (labels, logits)))


def top_3() -> Metric:
    """Returns the share of the rows whose label is among the 3 largest logits."""
    return TopK(3)


def top_5() -> Metric:
    """Returns the share of the rows whose label is among the 5 largest logits."""
    return TopK(5)


def auc(classes: int) -> Metric:
    """Returns the area under the ROC curve of each class against all others, averaged."""
    return AUC("ROC", classes=classes, from_logits=True)


def pr_auc(classes: int) -> Metric:
    """Returns the average precision of each class against all others, averaged."""
    return AUC("PR", classes=classes, from_logits=True)


def calibration_error() -> Metric:
    """Returns the expected calibration error in 15 bins."""
    return CalibrationError(from_logits=True)


def probabilities(model: Any, inputs: tf.Tensor, context: Any) -> tf.Tensor:
    """Returns the class probabilities that a classifier predicts, float32 [rows, classes]."""
    return tf.nn.softmax(tf.cast(model(inputs, context), tf.float32))
