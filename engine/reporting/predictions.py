"""Computes the predictions of a run's weights on a split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly import data
from engine.assembly.parts import Parts
from engine.models.base import ForwardContext
from engine.optim.precision import compute_dtype
from engine.reporting.scores import Predictions
from engine.runtime.scalars import as_int64
from engine.tasks.classification import probabilities


def predictions(
    parts: Parts,
    records: pipelines.DataSplit,
    interrupted: Callable[[], bool] = lambda: False,
) -> Predictions | None:
    """Computes the class probabilities of a split with the weights that evaluation uses.

    Runs on one device, whatever the run's strategy, and keeps the predictions of each example; the
    run's own evaluation keeps only sums.

    Args:
      parts: objects of the assembled run, with the weights to evaluate.
      records: split to predict.
      interrupted: returns whether to stop; called before each batch.

    Returns:
      Probabilities and labels, in file order; None if interrupted.

    Raises:
      RuntimeError: if TensorFlow fails to read or to evaluate the examples.
    """
    config = parts.config
    feed = data.open_split(config, parts.source, records, parts.feed_kind)
    model = parts.state.scored_model(config.stopping.evaluate_ema)
    dtype = compute_dtype(config.precision.precision)

    def scored(step: tf.Tensor, given: object) -> tuple[tf.Tensor, tf.Tensor]:
        batch = feed.batch(feed.next(given), step, 0, 0)
        context = ForwardContext(mask=batch.mask, dtype=dtype)
        return probabilities(model, batch.inputs, context), batch.targets

    compiled = tf.function(scored, autograph=False)
    scores, labels, left = [], [], feed.examples
    try:
        for step in range(feed.steps_per_epoch):
            if interrupted():
                return None
            given = feed.open(step, 1).given
            found, targets = compiled(tf.constant(as_int64(step)), given)
            some = min(left, len(targets))  # the rest of the batch is padding
            scores.append(found.numpy()[:some])
            labels.append(targets.numpy()[:some])
            left -= some
    except tf.errors.OpError as error:
        raise RuntimeError(f"{records.name} cannot be scored: {pipelines.reason(error)}") from error
    finally:
        feed.close()
    assert not left, "every example is scored"
    return Predictions(np.concatenate(scores), np.concatenate(labels))
