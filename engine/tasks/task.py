"""The interface of tasks: what is learned, and how it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from engine.tasks.metrics import Metric
from pipelines import Batch


class TaskOutput(NamedTuple):
    """What a task computes of a micro-batch; in padding rows, any values, even nan."""

    losses: tf.Tensor  # float [rows]
    # Arguments of each of the task's metrics, [rows, ...], by name: labels, predictions.
    metrics: Mapping[str, tuple[tf.Tensor, ...]] = {}
    # Weight of each row in the loss and in the metrics, float [rows], 0 or more; None: 1.
    weights: tf.Tensor | None = None


class Task(Protocol):
    """Interface of a task. A task never reduces over rows: the engine does (L1)."""

    metrics: Mapping[str, Metric]
    """What is measured besides the loss, by name."""

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns the losses of the rows, and the arguments of the metrics.

        `context` is the forward context of the model.
        """
