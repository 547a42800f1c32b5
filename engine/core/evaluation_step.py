"""The evaluation of a model on one micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.core.augmentation import preprocessed
from engine.core.collected import Rows, collected_rows
from engine.core.task_output import checked, masked_sums
from engine.models.base import ForwardContext
from engine.tasks.task import Task
from pipelines import Batch


def evaluation_step(
    *,
    model: tf.Module,
    task: Task,
    dtype: tf.DType = tf.float32,
    preprocess: Callable[[Any], Any] = lambda inputs: inputs,
) -> Callable[[Batch], tuple[tf.Tensor, Rows]]:
    """Returns a function that evaluates a model on a micro-batch, to be called in replica context.

    The function takes a `Batch` and returns `metrics.masked_sums`, the sums of loss and metrics
    over the rows that are not padding, and `collected_rows`. The loss includes the penalties of the
    model. The function raises ValueError if the output of the task or the arguments of a metric are
    invalid.

    Args:
      model: model to evaluate.
      task: task, which computes losses and metric arguments.
      dtype: dtype in which layers compute.
      preprocess: converts decoded inputs to the inputs of the model; by default, the identity.
    """

    def scored(batch: Batch) -> tuple[tf.Tensor, Rows]:
        batch = preprocessed(batch, None, preprocess)
        context = ForwardContext(mask=batch.mask, dtype=dtype)
        output = checked(task, task(model, batch, context), batch)
        if context.penalties:
            output = output._replace(losses=output.losses + tf.add_n(context.penalties))
        sums = masked_sums(task, output, batch)
        return sums, collected_rows(output, batch.mask, task.metrics)

    return scored
