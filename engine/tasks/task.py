"""Base class of tasks, which compute losses, metrics and predictions from a model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from engine.tasks.metrics import Metric
from pipelines import Batch, Source


class TaskOutput(NamedTuple):
    """Losses, metric arguments and weights of a micro-batch; padding rows may have any values."""

    losses: tf.Tensor  # float [rows]
    # Arguments of each of the task's metrics, [rows, ...], by name: labels, predictions.
    metrics: Mapping[str, tuple[tf.Tensor, ...]] = {}
    # Weight of each row in the loss and in the metrics, float [rows], 0 or more; None: 1.
    weights: tf.Tensor | None = None


class Task:
    """Base class of tasks. A task returns values per row; the engine reduces over rows (law L1).

    Attributes:
      metrics: metrics besides the loss, by name.
      section: import path "module:function" of the function that builds the report's section on
        predictions; "" for the section that fits any task.
      ignore_label: label in targets that counts neither in the loss nor in metrics; None: all
        count.
      averages_views: whether the mean of the model's outputs over views of an input, such as its
        mirror image, stands for its outputs, as that of logits does; `--evaluation_views` needs it.
      loss_unit: name of the loss and its unit, for the axis of a chart.
    """

    metrics: Mapping[str, Metric] = {}
    section: str = ""
    ignore_label: int | None = None
    averages_views: bool = False
    loss_unit: str = "loss"

    def output_spec(self, source: Source) -> Any:
        """Returns the nest of specs (`tf.TensorSpec`) of the model's outputs, without a batch axis.

        The default is one spec: logits for the classes of the data, float32 [classes].

        Raises:
          ValueError: if the task cannot learn the targets of this data; by default, if the data has
            no classes.
        """
        if not source.classes:
            raise ValueError(
                f"{type(self).__name__} has no output_spec, and {source.name} has no classes"
            )
        return tf.TensorSpec([source.classes], tf.float32)

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns the losses, metric arguments and weights of the rows of a micro-batch.

        Tasks must implement this method.

        Args:
          model: called as `model(batch.inputs, context)`; returns the outputs, [rows, ...] each.
          batch: micro-batch.
          context: `ForwardContext` of the call of the model; `context.training` is whether the call
            is a training step.
        """
        raise NotImplementedError

    def predict(self, outputs: Any) -> dict[str, tf.Tensor]:
        """Returns the predictions for the model's `outputs`, [rows, ...] each, by name.

        The predictions are written by `--mode=predict` and returned by the exported model. The
        default predictions are the outputs: those of a dict under their own names, a single tensor
        as "outputs", and several tensors as "outputs_0", "outputs_1" and so on, in the order of
        `tf.nest.flatten`.
        """
        if isinstance(outputs, Mapping):
            return dict(outputs)
        flat = tf.nest.flatten(outputs)
        return {"outputs": flat[0]} if len(flat) == 1 else dict(_numbered(flat))


def _numbered(tensors: list[tf.Tensor]) -> list[tuple[str, tf.Tensor]]:
    return [(f"outputs_{index}", tensor) for index, tensor in enumerate(tensors)]
