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


def predictions(
    parts: Parts, records: pipelines.DataSplit, interrupted: Callable[[], bool]
) -> Predictions | None:
    """Returns the class probabilities and labels of all examples of a split; None if interrupted.

    Uses the weights that evaluation uses (their EMA, with `--ema` and `--evaluate_ema`). Runs on
    one device, even if the run uses several. `interrupted` is called before each batch and returns
    whether to stop.

    Raises:
      RuntimeError: if TensorFlow fails to read or to evaluate the examples.
    """
    config = parts.config
    feed = data.open_split(config, parts.source, records, parts.feed_kind)
    model = parts.state.scored_model(config.stopping.evaluate_ema)
    dtype = compute_dtype(config.precision.precision)

    @tf.function(autograph=False)
    def predict(step: tf.Tensor, opened: object) -> tuple[tf.Tensor, tf.Tensor]:
        batch = feed.batch(feed.next(opened), step, 0, 0)
        context = ForwardContext(mask=batch.mask, dtype=dtype)
        outputs = model(parts.source.preprocess(batch.inputs), context)
        return parts.task.predict(outputs)["probabilities"], batch.targets

    scores, labels = [], []
    try:
        for step in range(feed.steps_per_epoch):
            if interrupted():
                return None
            outputs, targets = predict(tf.constant(as_int64(step)), feed.open(step, 1).given)
            scores.append(outputs.numpy())
            labels.append(targets.numpy())
    except tf.errors.OpError as error:
        raise RuntimeError(f"{records.name} cannot be scored: {pipelines.reason(error)}") from error
    finally:
        feed.close()
    examples = feed.examples  # the rest of the last batch is padding
    return Predictions(np.concatenate(scores)[:examples], np.concatenate(labels)[:examples])
