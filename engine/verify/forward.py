"""Reads the first batch of a sample, and finds whether outputs depend on other examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts
from engine.core.augmentation import preprocessed
from engine.models.base import ForwardContext
from engine.models.stateless_random import StatelessRNG
from engine.optim.precision import compute_dtype
from engine.verify.differences import difference
from engine.verify.sample import Sample


def first_batch(parts: Parts, sample: Sample) -> pipelines.Batch:
    """Returns the first `sample.batch` training examples as a batch: decoded, in file order."""
    feed = pipelines.open_feed(
        "resident",
        sample.source,
        sample.source.train,
        global_batch_size=sample.batch,
        seed=None,
        layout=pipelines.BatchLayout(),
        strategy=tf.distribute.get_strategy(),
        cache_dir=parts.config.data.cache_dir,
    )
    return feed.batch(feed.next(feed.open(0, 1).given), tf.constant(0, tf.int64), 0)


def gathered(batch: pipelines.Batch, rows: np.ndarray) -> pipelines.Batch:
    """Returns a batch of the examples of `batch` at `rows`, int [k], k >= 1.

    The rows of the new batch are numbered consecutively from the number of `rows[0]` on. These
    numbers select the random numbers.
    """

    def gather(values: Any) -> Any:
        return tf.nest.map_structure(lambda value: tf.gather(value, rows), values)

    return batch._replace(
        inputs=gather(batch.inputs),
        targets=gather(batch.targets),
        mask=gather(batch.mask),
        row=batch.row + rows[0],
        position=batch.position + rows[0],
    )


def crosses_examples(parts: Parts, sample: Sample, bound: float) -> bool:
    """Returns whether the model's training outputs for an example depend on the other examples.

    The function compares the outputs for the first half of a batch with those after the second half
    has been replaced by copies of the first example. A relative difference above `bound` is a
    dependence. For a batch of one example, the result is False.
    """
    half = sample.batch // 2
    if not half:
        return False
    batch, preprocess = first_batch(parts, sample), sample.source.preprocess
    dtype = compute_dtype(parts.config.precision.precision)

    @tf.function(autograph=False)
    def outputs(batch: pipelines.Batch) -> Any:
        noise = StatelessRNG(0, tf.constant(0, tf.int64), batch.row)
        context = ForwardContext(training=True, mask=batch.mask, noise=noise, dtype=dtype)
        model = _Recorder(parts.model)
        parts.task(model, preprocessed(batch, None, preprocess), context)
        return [tf.cast(output[:half], tf.float64) for output in tf.nest.flatten(model.outputs)]

    rows = np.arange(sample.batch)
    found, others = outputs(batch), outputs(gathered(batch, np.where(rows < half, rows, 0)))
    pairs = zip(found, others, strict=True)
    return any(difference(one.numpy(), other.numpy()) > bound for one, other in pairs)


class _Recorder:
    """Model wrapper that appends the outputs of each call to `outputs`.

    Other attributes are those of the model.
    """

    def __init__(self, model: tf.Module) -> None:
        self._model = model
        self.outputs: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.outputs.append(self._model(*arguments, **named))
        return self.outputs[-1]
