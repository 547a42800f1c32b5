"""Regression task: the model predicts numbers for each example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from engine.tasks.metrics import MeanAbsoluteError, Metric
from engine.tasks.task import Task, TaskOutput
from pipelines import Batch, Source


def _huber(errors: tf.Tensor) -> tf.Tensor:
    """Returns the Huber loss of each error, with a delta of 1 (Huber 1964)."""
    size = tf.abs(errors)
    return tf.where(size <= 1, tf.square(errors) / 2, size - 0.5)


LOSSES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "mean_squared_error": tf.square,
    "mean_absolute_error": tf.abs,
    "huber": _huber,
}


class Regression(Task):
    """Regression task: the loss of an example is the mean loss of its numbers, in float32.

    Targets are numbers, [rows, ...]. Outputs have the same shape, but [rows, 1] for targets [rows].

    Args:
      metrics: metrics by name; each gets targets and outputs, float32 of the shape of the outputs.
        None: the mean absolute error.
      regression_loss: "mean_squared_error", "mean_absolute_error" or "huber" (delta 1).
    """

    section = "engine.reporting.regression_section:section"
    averages_views = True

    def __init__(
        self,
        metrics: Mapping[str, Metric] | None = None,
        regression_loss: str = "mean_squared_error",
    ) -> None:
        self._loss = LOSSES[regression_loss]
        self.loss_unit = regression_loss.replace("_", " ")
        default: dict[str, Metric] = {"mean_absolute_error": MeanAbsoluteError()}
        self.metrics = default if metrics is None else metrics

    def output_spec(self, source: Source) -> tf.TensorSpec:
        """Returns the spec of the predicted numbers, float32 of the shape of a target.

        If a target is a scalar, the shape is [1].

        Raises:
          ValueError: if the target of an example is not a single tensor of numbers.
        """
        targets = source.targets
        if not isinstance(targets, tf.TensorSpec) or targets.dtype in (tf.string, tf.bool):
            raise ValueError(f"--task=regression: the targets of {source.name} are no numbers")
        return tf.TensorSpec(targets.shape if targets.shape.rank else [1], tf.float32)

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns the mean loss of each row, and the metric arguments (targets, outputs).

        Args:
          model: called as `model(batch.inputs, context)`; returns the predicted numbers,
            [rows, ...].
          batch: micro-batch.
          context: `ForwardContext` of the call of the model.
        """
        outputs = tf.cast(model(batch.inputs, context), tf.float32)
        targets = tf.cast(batch.targets, tf.float32)
        if targets.shape.rank == 1:
            targets = targets[:, tf.newaxis]
        losses = tf.reshape(self._loss(outputs - targets), [tf.shape(outputs)[0], -1])
        losses = tf.ensure_shape(tf.reduce_mean(losses, -1), outputs.shape[:1])
        return TaskOutput(losses, dict.fromkeys(self.metrics, (targets, outputs)))

    def predict(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs of the model as "predictions", float32 [rows, ...]."""
        return {"predictions": tf.cast(outputs, tf.float32)}
