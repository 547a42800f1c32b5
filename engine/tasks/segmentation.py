"""Segmentation task: each position, such as a pixel, belongs to one of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from engine.tasks.cross_entropy import cross_entropy
from engine.tasks.metrics import Metric
from engine.tasks.task import Task, TaskOutput
from pipelines import Batch, Source


class Segmentation(Task):
    """Segmentation task: softmax cross-entropy of each position, in float32.

    The loss is the weighted mean over all positions of all examples. Targets are class indices,
    integer [rows, ...] or [rows, ..., 1]; outputs are logits [rows, ..., classes].

    Args:
      metrics: metrics by name; each gets labels, int32 [rows, ...], logits, float32
        [rows, ..., classes], and, if positions are weighted, the weight of each position divided by
        the mean weight of the positions of the row, float32 [rows, ...].
      class_weights: one weight per class, by which a position is weighted in training; empty: 1.
        Evaluation does not weight.
      ignore_label: label of positions that count neither in the loss nor in metrics; None: all
        count.
      classes: number of classes; 0: the number of classes of the data set.
    """

    section = "engine.reporting.mask_section:section"
    averages_views = True
    loss_unit = "cross-entropy, nats"

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        class_weights: Sequence[float] = (),
        ignore_label: int | None = None,
        classes: int = 0,
    ) -> None:
        self.metrics = metrics
        self._class_weights, self.ignore_label = tuple(class_weights), ignore_label
        self._classes = classes

    def output_spec(self, source: Source) -> tf.TensorSpec:
        """Returns the spec of the logits, float32 [..., classes].

        Raises:
          ValueError: if the targets are not integers, or if the number of classes is not known.
        """
        targets = source.targets
        if not isinstance(targets, tf.TensorSpec) or not targets.dtype.is_integer:
            raise ValueError(f"--task=segmentation: the targets of {source.name} are no classes")
        return tf.TensorSpec(
            [*_positions(targets.shape.as_list()), class_count(source, self._classes)], tf.float32
        )

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns the mean loss over the positions of each row, metric arguments and row weights.

        The metric arguments are (labels, logits) and, if positions are weighted, position weights.
        The mean is weighted; it is 0 if all positions of a row have the weight 0. The row weights
        are the mean weight of the positions of each row, float32 [rows]; None if neither class
        weights nor `ignore_label` are applied. Class weights are applied only if `context.training`
        is true.

        Args:
          model: called as `model(batch.inputs, context)`; returns logits [rows, ..., classes].
          batch: micro-batch.
          context: `ForwardContext` of the call of the model.
        """
        logits = tf.cast(model(batch.inputs, context), tf.float32)
        classes = logits.shape[-1]
        # A GPU reshapes and compares int32 on the host.
        labels = tf.reshape(tf.cast(batch.targets, tf.int64), tf.shape(logits)[:-1])
        labels = tf.ensure_shape(labels, logits.shape[:-1])
        weights = tf.ones_like(labels, tf.float32)
        if self.ignore_label is not None:
            weights = tf.cast(tf.not_equal(labels, self.ignore_label), tf.float32)
            labels = tf.where(weights > 0, labels, 0)
        if self._class_weights and context.training:
            weights *= tf.gather(tf.constant(self._class_weights, tf.float32), labels)
        flat = tf.cast(tf.reshape(labels, [-1]), tf.int32)
        losses = cross_entropy(flat, tf.reshape(logits, [-1, classes]))
        rows = tf.shape(labels)[0]
        by_position = tf.reshape(weights, [rows, -1])
        total = tf.reduce_sum(by_position, -1)
        # The mean over the positions of a row, times the row's weight, is a sum over positions.
        by_row = tf.reduce_sum(tf.reshape(losses, [rows, -1]) * by_position, -1)
        by_row = tf.math.divide_no_nan(by_row, total)
        static = labels.shape[:1]
        if self.ignore_label is None and not (self._class_weights and context.training):
            arguments: tuple[tf.Tensor, ...] = (tf.cast(labels, tf.int32), logits)
            row_weights = None
        else:
            count = tf.cast(tf.shape(by_position)[1], tf.float32)
            row_weights = tf.ensure_shape(total / count, static)
            share = tf.reshape(row_weights, [-1, *[1] * (labels.shape.rank - 1)])
            of_position = tf.math.divide_no_nan(weights, share)
            arguments = (tf.cast(labels, tf.int32), logits, of_position)
        losses = tf.ensure_shape(by_row, static)
        return TaskOutput(losses, dict.fromkeys(self.metrics, arguments), row_weights)

    def predict(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns "mask", the class with the largest logit at each position, int32 [rows, ...]."""
        return {"mask": tf.argmax(outputs, axis=-1, output_type=tf.int32)}


def class_count(source: Source, classes: int = 0) -> int:
    """Returns `classes`, or the number of classes of the data set if `classes` is 0.

    Raises:
      ValueError: if both are 0.
    """
    if not (classes or source.classes):
        raise ValueError(
            f"--task=segmentation: {source.name} does not say how many classes it has; give "
            "--classes"
        )
    return classes or source.classes


def _positions(shape: list[int]) -> list[int]:
    """Returns the shape of the positions of a target: the last axis is left out if it has size 1.

    The last axis of a target of rank 2 or less is kept.
    """
    return shape[:-1] if len(shape) > 2 and shape[-1] == 1 else shape
