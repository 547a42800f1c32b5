"""Classification task: each example belongs to one of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from engine.tasks.cross_entropy import cross_entropy
from engine.tasks.metrics import AUC, Accuracy, CalibrationError, Metric, TopK
from engine.tasks.task import Task, TaskOutput
from pipelines import Batch, Source


class Classification(Task):
    """Classification task with softmax cross-entropy, computed in float32.

    Targets are labels, int32 [rows], or distributions over the classes, float32 [rows, classes], as
    mixup and CutMix create them. For a distribution, metrics use the most probable class as the
    label.

    Args:
      label_smoothing: in training, the probability taken from the target and spread evenly over all
        classes (Szegedy et al. 2016, "Rethinking the Inception architecture"). Evaluation does not
        smooth, so that the loss is comparable between runs.
      metrics: metrics by name; each gets labels, int32 [rows], and logits, float32 [rows, classes].
        None: the accuracy.
      class_weights: one weight per class, by which an example is weighted in training. The weight
        of an example whose target is a distribution is the mean of the class weights under that
        distribution. Empty: 1. Evaluation does not weight.
      ignore_label: label of examples that count neither in the loss nor in metrics; None: all
        count. Not applied to distributions.
    """

    section = "engine.reporting.classification_section:section"
    averages_views = True
    loss_unit = "cross-entropy, nats"

    def __init__(
        self,
        label_smoothing: float = 0.0,
        metrics: Mapping[str, Metric] | None = None,
        class_weights: Sequence[float] = (),
        ignore_label: int | None = None,
    ) -> None:
        self._smoothing = label_smoothing
        self._class_weights, self.ignore_label = tuple(class_weights), ignore_label
        self.metrics = {"accuracy": Accuracy()} if metrics is None else metrics

    def output_spec(self, source: Source) -> tf.TensorSpec:
        """Returns the spec of the logits, float32 [classes].

        Raises:
          ValueError: if the targets of the data set are not class labels.
        """
        targets = source.targets
        is_label = isinstance(targets, tf.TensorSpec) and not targets.shape.rank
        if not source.classes or not is_label or targets.dtype.is_floating:
            raise ValueError(
                f"--task=classification: the targets of {source.name} are no labels of classes; "
                "give --task=regression, multi_label or segmentation, or other --target_features"
            )
        return tf.TensorSpec([source.classes], tf.float32)

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns the cross-entropy of each row, the metric arguments and row weights.

        The metric arguments are (labels, logits). Label smoothing and class weights are applied
        only if `context.training` is true. The weights are float32 [rows]; None if neither class
        weights nor `ignore_label` are applied.

        Args:
          model: called as `model(batch.inputs, context)`; returns logits [rows, classes].
          batch: micro-batch.
          context: `ForwardContext` of the call of the model.
        """
        logits = tf.cast(model(batch.inputs, context), tf.float32)
        targets = labels = batch.targets
        weights = None
        if targets.dtype.is_floating:
            labels = tf.argmax(targets, axis=-1, output_type=tf.int32)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        else:
            if self.ignore_label is not None:
                # A GPU compares int32 on the host.
                valid = tf.not_equal(tf.cast(labels, tf.int64), self.ignore_label)
                weights, labels = tf.cast(valid, tf.float32), tf.where(valid, labels, 0)
            losses = cross_entropy(labels, logits)
        if self._smoothing and context.training:
            # The cross-entropy is linear in the target.
            spread = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
            losses = (1 - self._smoothing) * losses + self._smoothing * spread
        if self._class_weights and context.training:
            of_class = tf.constant(self._class_weights, tf.float32)
            by_row = (
                tf.linalg.matvec(targets, of_class)
                if targets.dtype.is_floating
                else tf.gather(of_class, labels)
            )
            weights = by_row if weights is None else weights * by_row
        return TaskOutput(losses, dict.fromkeys(self.metrics, (labels, logits)), weights)

    def predict(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the predictions for logits, [rows, classes].

        Returns:
          "probabilities", float32 [rows, classes], and "classes", the most probable class of each
          row, int64 [rows].
        """
        probabilities = tf.nn.softmax(tf.cast(outputs, tf.float32))
        return {"probabilities": probabilities, "classes": tf.argmax(probabilities, axis=-1)}


def top_3() -> Metric:
    """Returns a metric: the fraction of rows whose label has one of the 3 largest logits."""
    return TopK(3)


def top_5() -> Metric:
    """Returns a metric: the fraction of rows whose label has one of the 5 largest logits."""
    return TopK(5)


def auc(classes: int) -> Metric:
    """Returns a metric of logits: the mean over classes of one-versus-rest ROC AUC."""
    return AUC("ROC", classes=classes, from_logits=True)


def pr_auc(classes: int) -> Metric:
    """Returns a metric of logits: the mean over classes of one-versus-rest average precision."""
    return AUC("PR", classes=classes, from_logits=True)


def calibration_error() -> Metric:
    """Returns a metric of logits: the expected calibration error in 15 bins of the confidence."""
    return CalibrationError(from_logits=True)
