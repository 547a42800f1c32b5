"""What is learned: model and batch -> loss and metrics of each example.

The only module of the engine that knows of labels. Implement `Task` to train for something else.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from pipelines import Batch


class Scores(NamedTuple):
    """What a task says of each row of a batch; padding rows hold anything finite or not."""

    losses: tf.Tensor  # float32 [rows]
    metrics: tuple[tf.Tensor, ...]  # float32 [rows] each, in the order of Task.metrics


class Task(Protocol):
    """Implement it to train for something else. Never sums over rows: the engine does (L1)."""

    metrics: tuple[str, ...]
    """Names of what is measured beside the loss; each is reported as its mean over examples."""

    def __call__(self, model: Any, batch: Batch, call: Any) -> Scores:
        """Scores each row; `call` is what the model wants to know besides its inputs."""


class Classification:
    """Cross-entropy on softmax, in float32, with integer labels; and accuracy.

    One-hot labels give the same loss: the cross-entropy with a one-hot target is the negative log
    probability of the labelled class.
    """

    metrics: tuple[str, ...] = ("accuracy",)

    def __call__(self, model: Any, batch: Batch, call: Any) -> Scores:
        """See `Task`. `model` gives float32 logits [rows, classes]."""
        logits = model(batch.inputs, call)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch.targets, logits)
        right = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), batch.targets)
        return Scores(losses, (tf.cast(right, tf.float32),))
