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
    """Segmentation: softmax cross-entropy of each position, in float32.

    The loss is the weighted mean over all positions of all examples. Targets are classes, integer
    [rows, ...] or [rows, ..., 1]; outputs are logits [rows, ..., classes].

    Args:
      metrics: metrics by name; each gets labels, int32 [rows, ...], logits and, if positions are
        weighted, their weights, float32 [rows, ...].
      classes: number of classes; 0: that of the data set.
      class_weights: weight of a position in training by its class; empty: 1.
      ignore_label: label of positions that count neither in the loss nor in metrics; None: all
        count.
    """

    section = "engine.reporting.mask_section:section"
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

        Raises ValueError if the targets are not integers, or the number of classes is not known.
        """
        targets = source.targets
        if not isinstance(targets, tf.TensorSpec) or not targets.dtype.is_integer:
            raise ValueError(f"--task=segmentation: the targets of {source.name} are no classes")
        return tf.TensorSpec(
            [*_positions(targets.shape.as_list()), class_count(source, self._classes)], tf.float32
        )

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns each row's mean loss over positions, the metrics' arguments and any row weights.

        `model` returns logits [rows, ..., classes].
        """
        logits = tf.cast(model(batch.inputs, context), tf.float32)
        classes = logits.shape[-1]
        labels = tf.cast(tf.reshape(batch.targets, tf.shape(logits)[:-1]), tf.int32)
        labels = tf.ensure_shape(labels, logits.shape[:-1])
        weights = tf.ones_like(labels, tf.float32)
        if self.ignore_label is not None:
            weights = tf.cast(tf.not_equal(labels, self.ignore_label), tf.float32)
            labels = tf.where(weights > 0, labels, 0)
        if self._class_weights and context.training:
            weights *= tf.gather(tf.constant(self._class_weights, tf.float32), labels)
        losses = cross_entropy(tf.reshape(logits, [-1, classes]), tf.reshape(labels, [-1]))
        rows = tf.shape(labels)[0]
        by_position = tf.reshape(weights, [rows, -1])
        total = tf.reduce_sum(by_position, -1)
        # The mean over the positions of a row, times the row's weight, is a sum over positions.
        by_row = tf.reduce_sum(tf.reshape(losses, [rows, -1]) * by_position, -1)
        by_row = tf.math.divide_no_nan(by_row, total)
        static = labels.shape[:1]
        if self.ignore_label is None and not (self._class_weights and context.training):
            arguments: tuple[tf.Tensor, ...] = (labels, logits)
            row_weights = None
        else:
            count = tf.cast(tf.shape(by_position)[1], tf.float32)
            row_weights = tf.ensure_shape(total / count, static)
            share = tf.reshape(row_weights, [-1, *[1] * (labels.shape.rank - 1)])
            arguments = (labels, logits, tf.math.divide_no_nan(weights, share))
        losses = tf.ensure_shape(by_row, static)
        return TaskOutput(losses, dict.fromkeys(self.metrics, arguments), row_weights)

    def predict(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns "mask", the most probable class of each position, int32 [rows, ...]."""
        return {"mask": tf.argmax(outputs, axis=-1, output_type=tf.int32)}


def class_count(source: Source, classes: int = 0) -> int:
    """Returns `classes`, or if 0, the number of the data set; raises ValueError if both are 0."""
    if not (classes or source.classes):
        raise ValueError(
            f"--task=segmentation: {source.name} does not say how many classes it has; give "
            "--classes"
        )
    return classes or source.classes


def _positions(shape: list[int]) -> list[int]:
    """Returns a target's shape without a last axis of size 1; one of rank below 3 is kept."""
    return shape[:-1] if len(shape) > 2 and shape[-1] == 1 else shape
