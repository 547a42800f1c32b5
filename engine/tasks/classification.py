"""The interface of tasks, and classification."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from engine.tasks.cross_entropy import cross_entropy
from engine.tasks.registry import Metric, metric
from pipelines import Batch


class Scores(NamedTuple):
    """Loss and metrics of each row of a batch; in padding rows, any value, even NaN."""

    losses: tf.Tensor  # float32 [rows]
    metrics: tuple[tf.Tensor, ...]  # float32 [rows] each, in the order of Task.metrics


class Task(Protocol):
    """Interface of a task. A task never reduces over rows: the engine does (L1)."""

    metrics: tuple[str, ...]
    """Names of what is measured beside the loss; each is reported as its mean over examples."""

    def __call__(self, model: Any, batch: Batch, context: Any) -> Scores:
        """Returns loss and metrics of each row; `context` is the forward context of the model."""


class Classification:
    """Classification with softmax cross-entropy in float32, and metrics of each example.

    Targets are labels, int32 [rows], or distributions over the classes, float32 [rows, classes],
    as mixup creates them. For a distribution, metrics use the most probable class as the label.

    Args:
      smoothing: label smoothing in training: the probability taken from the target and spread
        evenly over all classes (Szegedy et al. 2016, "Rethinking the Inception architecture").
        Evaluation does not smooth, so that its loss is comparable between runs.
      metrics: names of registered metrics.

    Raises:
      ValueError: for an unknown metric.
    """

    def __init__(self, smoothing: float = 0.0, metrics: tuple[str, ...] = ("accuracy",)) -> None:
        self._smoothing, self.metrics = smoothing, metrics
        self._computed = [metric(name) for name in metrics]

    def __call__(self, model: Any, batch: Batch, context: Any) -> Scores:
        """Returns cross-entropy and metrics of each row; `model` returns logits [rows, classes]."""
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
        return Scores(losses, tuple(each.compute(logits, labels) for each in self._computed))


def _accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns float32 [rows]: 1 where the largest logit is that of the label, else 0."""
    correct = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)
    return tf.cast(correct, tf.float32)


ACCURACY = Metric(_accuracy, percentage=True)


def probabilities(model: Any, inputs: tf.Tensor, context: Any) -> tf.Tensor:
    """Returns the class probabilities that a classifier predicts, float32 [rows, classes]."""
    return tf.nn.softmax(tf.cast(model(inputs, context), tf.float32))
