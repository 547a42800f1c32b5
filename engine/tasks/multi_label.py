"""Multi-label classification task: each example has any number of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from engine.tasks.metrics import AUC, F1, Accuracy, Metric, Precision, Recall
from engine.tasks.task import Task, TaskOutput
from pipelines import Batch, Source


class MultiLabel(Task):
    """Multi-label classification task: sigmoid cross-entropy, averaged over labels, in float32.

    Targets are 0 or 1 for each label, [rows, labels]. A label is predicted if its logit is above 0,
    that is, if its probability is above 1/2.

    Args:
      metrics: metrics by name; each gets targets and logits, float32 [rows, labels]. None: the
        accuracy, the fraction of all labels that are predicted correctly.
    """

    section = "engine.reporting.label_section:section"
    averages_views = True
    loss_unit = "cross-entropy, nats"

    def __init__(self, metrics: Mapping[str, Metric] | None = None) -> None:
        self.metrics = {"accuracy": LabelAccuracy()} if metrics is None else metrics

    def output_spec(self, source: Source) -> tf.TensorSpec:
        """Returns the spec of the logits, float32 [labels].

        Raises:
          ValueError: if the target of an example is not a vector.
        """
        targets = source.targets
        if not isinstance(targets, tf.TensorSpec) or targets.shape.rank != 1:
            raise ValueError(
                f"--task=multi_label: the targets of {source.name} are no vector with 0 or 1 for "
                "each label"
            )
        return tf.TensorSpec(targets.shape, tf.float32)

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns the mean cross-entropy of each row, and the metric arguments (targets, logits).

        Args:
          model: called as `model(batch.inputs, context)`; returns logits [rows, labels].
          batch: micro-batch.
          context: `ForwardContext` of the call of the model.
        """
        logits = tf.cast(model(batch.inputs, context), tf.float32)
        targets = tf.cast(batch.targets, tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        arguments = (targets, logits)
        return TaskOutput(tf.reduce_mean(losses, -1), dict.fromkeys(self.metrics, arguments))

    def predict(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the predictions for logits, [rows, labels].

        Returns:
          "probabilities", float32 [rows, labels], and "predicted", whether a label is predicted,
          bool [rows, labels].
        """
        logits = tf.cast(outputs, tf.float32)
        return {"probabilities": tf.sigmoid(logits), "predicted": logits > 0}


class LabelAccuracy(Accuracy):
    """Weighted fraction of all labels of all rows that are predicted correctly.

    Targets are 0 or 1, and predictions are logits, both [rows, labels]. A label is predicted if its
    logit is above 0.
    """

    def values(self, labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        """Returns whether each label is predicted correctly, bool [rows, labels]."""
        return tf.equal(predictions > 0, labels > 0.5)


def metric(name: str, labels: int) -> Metric:
    """Returns the metric of a name in `--metrics`, for multi-label classification from logits.

    Args:
      name: "accuracy", "precision", "recall", "f1", "auc" or "pr_auc".
      labels: number of labels, over which all metrics but the accuracy are averaged.

    Raises:
      ValueError: for any other name.
    """
    options: dict[str, Any] = {"classes": labels, "multi_label": True}
    counts = {"precision": Precision, "recall": Recall, "f1": F1}
    if name == "accuracy":
        return LabelAccuracy()
    if name in counts:
        return counts[name](**options, threshold=0.0)
    if name in ("auc", "pr_auc"):
        return AUC("ROC" if name == "auc" else "PR", **options, from_logits=True)
    known = ", ".join(("accuracy", *counts, "auc", "pr_auc"))
    raise ValueError(f"--metrics={name}: --task=multi_label has {known}")
