"""Language-model task: the next token at each position of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from engine.tasks.cross_entropy import cross_entropy
from engine.tasks.metrics import BitsPerToken, Metric, Perplexity
from engine.tasks.task import Task, TaskOutput
from pipelines import Batch, Source

_SAME = 1e-3  # relative difference of logits that rounding, also to 16 bits, may explain


class LanguageModel(Task):
    """Language-model task: softmax cross-entropy of the next token, in float32.

    The loss of a row is the mean over its positions. Targets are ids, integer [rows, tokens];
    outputs are logits [rows, tokens, vocabulary]. The logits of a position may depend only on the
    inputs up to it, as those of `--model=transformer` do; `--mode=inspect` checks that.

    Args:
      metrics: metrics by name. A `Perplexity` and a `BitsPerToken` get the losses, float32
        [rows, tokens]; each other metric gets labels, int32 [rows, tokens], and logits, float32
        [rows, tokens, vocabulary].
      label_smoothing: probability that is spread over all tokens in the training loss.
      classes: size of the vocabulary; 0: that of the data set.
    """

    loss_unit = "cross-entropy, nats a token"

    def __init__(
        self, metrics: Mapping[str, Metric], label_smoothing: float = 0.0, classes: int = 0
    ) -> None:
        self.metrics = metrics
        self._smoothing, self._classes = label_smoothing, classes

    def output_spec(self, source: Source) -> tf.TensorSpec:
        """Returns the spec of the logits, float32 [tokens, vocabulary].

        Raises:
          ValueError: if the targets are not sequences of ids, or the size of the vocabulary is not
            known.
        """
        targets = source.targets
        if (
            not isinstance(targets, tf.TensorSpec)
            or not targets.dtype.is_integer
            or targets.shape.rank != 1
        ):
            raise ValueError(
                f"--task=language_model: the targets of {source.name} are no sequences of ids; "
                "give a text, such as --dataset=text:PATH"
            )
        vocabulary = self._classes or source.classes
        if not vocabulary:
            raise ValueError(
                f"--task=language_model: {source.name} does not say how many tokens there are; "
                "give --classes"
            )
        return tf.TensorSpec([*targets.shape, vocabulary], tf.float32)

    def __call__(self, model: Any, batch: Batch, context: Any) -> TaskOutput:
        """Returns the mean loss over the positions of each row, and metric arguments.

        Args:
          model: called as `model(batch.inputs, context)`; returns logits
            [rows, tokens, vocabulary].
          batch: micro-batch.
          context: `ForwardContext` of the call of the model.
        """
        logits = model(batch.inputs, context)
        labels = tf.cast(batch.targets, tf.int32)
        losses = cross_entropy(labels, logits)
        trained = losses
        if self._smoothing and context.training:
            wide = tf.cast(logits, tf.float32)
            even = tf.reduce_logsumexp(wide, -1) - tf.reduce_mean(wide, -1)
            trained = (1 - self._smoothing) * losses + self._smoothing * even
        arguments: dict[str, tuple[tf.Tensor, ...]] = {}
        for name, metric in self.metrics.items():
            if isinstance(metric, (Perplexity, BitsPerToken)):
                arguments[name] = (losses,)
            else:
                arguments[name] = (labels, tf.cast(logits, tf.float32))
        return TaskOutput(tf.reduce_mean(trained, -1), arguments)

    def predict(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns "logits" of each next token, float32 [rows, tokens, vocabulary]."""
        return {"logits": tf.cast(outputs, tf.float32)}


def sees_later_tokens(
    logits_at: Callable[[np.ndarray, int], np.ndarray], context: int, vocabulary: int
) -> bool:
    """Returns whether the logits of a position depend on later inputs, by an example.

    Args:
      logits_at: returns the logits at a position, [rows, vocabulary], for ids, int64
        [rows, context].
      context: tokens of a window.
      vocabulary: number of tokens.
    """
    middle = (context - 1) // 2
    ids = np.random.default_rng(0).integers(vocabulary, size=[1, context])
    later = np.where(np.arange(context) > middle, (ids + 1) % vocabulary, ids)
    one, other = logits_at(ids, middle), logits_at(later, middle)
    return not np.abs(one - other).max() <= _SAME * np.abs(one).max()
