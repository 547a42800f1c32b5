"""A run's weights on a split: what the network says of each example."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

import pipelines
from engine import feeding
from engine.assembly import Parts
from engine.numerics.precision import compute_dtype
from engine.numerics.scalars import whole
from engine.reporting.scores import Predictions
from engine.task import probabilities
from models import Pass


def predictions(
    parts: Parts,
    records: pipelines.Records,
    interrupted: Callable[[], bool] = lambda: False,
) -> Predictions | None:
    """Probabilities and labels of a split, in file order, by the weights that are evaluated.

    On one device, whatever the run's strategy: a run's own evaluation adds up and keeps nothing.

    Args:
      parts: of the run, restored.
      records: the split.
      interrupted: asked now and then whether to give up.

    Returns:
      None when interrupted.

    Raises:
      RuntimeError: when TensorFlow fails.
    """
    config = parts.config
    feed = feeding.open_split(config, parts.source, records, parts.feed_kind)
    model = parts.state.scored_model(config.stopping.evaluate_ema)
    dtype = compute_dtype(config.precision.precision)

    def scored(step: tf.Tensor, given: object) -> tuple[tf.Tensor, tf.Tensor]:
        batch = feed.batch(feed.next(given), step, 0, 0)
        call = Pass(mask=batch.mask, dtype=dtype)
        return probabilities(model, batch.inputs, call), batch.targets

    compiled = tf.function(scored, autograph=False)
    scores, labels, left = [], [], feed.examples
    try:
        for step in range(feed.steps_per_epoch):
            if interrupted():
                return None
            given = feed.open(step, 1).given
            found, targets = compiled(tf.constant(whole(step)), given)
            some = min(left, len(targets))  # what is left over is padding
            scores.append(found.numpy()[:some])
            labels.append(targets.numpy()[:some])
            left -= some
    except tf.errors.OpError as error:
        raise RuntimeError(f"{records.name} cannot be scored: {pipelines.reason(error)}") from error
    finally:
        feed.close()
    assert not left, "every example is scored"
    return Predictions(np.concatenate(scores), np.concatenate(labels))
