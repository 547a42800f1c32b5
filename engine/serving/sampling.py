"""Samples text from a language model, a token at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engine.assembly.trained import TrainedModel
from engine.serving.module import predict
from engine.tasks.language_model import sees_later_tokens


class SamplingOptions(NamedTuple):
    """How tokens are chosen.

    Attributes:
      temperature: divisor of the logits; 0: the most probable token.
      top_k: number of the most probable tokens among which one is chosen; 0: all.
      seed: seed of the random numbers. A token is a function of the seed, of its position and of
        the logits.
    """

    temperature: float
    top_k: int
    seed: int


def chosen(logits: np.ndarray, position: int, options: SamplingOptions) -> np.ndarray:
    """Chooses a token for each row, int64 [rows].

    Args:
      logits: [rows, vocabulary].
      position: number of tokens that were chosen before.
      options: how tokens are chosen.
    """
    logits = logits.astype(np.float64)
    if not options.temperature:
        return logits.argmax(-1)
    vocabulary = logits.shape[-1]
    if 0 < options.top_k < vocabulary:
        smallest = np.partition(logits, -options.top_k, -1)[:, -options.top_k, None]
        logits = np.where(logits < smallest, -np.inf, logits)
    logits = (logits - logits.max(-1, keepdims=True)) / options.temperature
    cumulative = np.cumsum(np.exp(logits), -1)
    draws = np.random.default_rng((options.seed, position)).random(len(logits))
    below = cumulative <= draws[:, None] * cumulative[:, -1:]
    return np.minimum(below.sum(-1), vocabulary - 1)


class Sampler:
    """A language model that continues texts.

    It computes a whole window for each token. Of a text that is longer than a window, the model
    sees the last tokens.

    Args:
      trained: a trained language model.

    Raises:
      ValueError: if the run's data set is no text, the task does not predict "logits", or the
        logits of a position depend on later inputs.
    """

    def __init__(self, trained: TrainedModel) -> None:
        source = trained.source
        self.vocabulary = source.vocabulary
        self._spec = source.decoded[0]
        (self._context,) = self._spec.shape

        @tf.function(autograph=False, reduce_retracing=True)
        def logits_at(inputs: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
            found = predict(trained.model, trained.task, source, inputs, trained.dtype)
            logits = found.get("logits")
            if logits is None or logits.shape[1:] != (self._context, len(source.class_names)):
                raise ValueError(
                    f"--prompt: the task {trained.config.task.task} predicts no logits of the next "
                    "token at each position; language_model does"
                )
            return tf.cast(logits[:, last], tf.float32)

        self._logits_at = logits_at
        if sees_later_tokens(self._logits, self._context, len(self.vocabulary.tokens)):
            raise ValueError(
                "--prompt: the model's prediction of a token depends on later tokens, so it cannot "
                "continue a text; train a causal model, such as --model=transformer"
            )

    def _logits(self, windows: np.ndarray, last: int) -> np.ndarray:
        inputs = tf.constant(windows, self._spec.dtype)
        return self._logits_at(inputs, tf.constant(last)).numpy()

    def continuations(
        self,
        prompt: str,
        samples: int,
        tokens: int,
        options: SamplingOptions,
        advance: Callable[[], bool],
    ) -> list[str]:
        """Returns continuations of a text, without the text itself.

        Args:
          prompt: text to continue.
          samples: number of continuations.
          tokens: number of tokens of each.
          options: how tokens are chosen.
          advance: called after each token; returns whether to stop there.

        Raises:
          ValueError: if the text is empty or has a character that the model does not know.
        """
        start = self.vocabulary.encode(prompt, "--prompt")
        if not len(start):
            raise ValueError("--prompt: give a text of at least one token")
        ids = np.zeros((samples, len(start) + tokens), np.int64)
        ids[:, : len(start)] = start
        for position in range(tokens):
            end = len(start) + position
            first = max(0, end - self._context)
            window = np.zeros((samples, self._context), np.int64)
            window[:, : end - first] = ids[:, first:end]
            ids[:, end] = chosen(self._logits(window, end - first - 1), position, options)
            if advance():
                ids = ids[:, : end + 1]
                break
        return [self.vocabulary.decode(row) for row in ids[:, len(start) :]]
