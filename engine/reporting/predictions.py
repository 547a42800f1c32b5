"""Computes a run's predictions on a split, and builds the task's report section from these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly import data
from engine.assembly.parts import Parts
from engine.config.registry import import_attribute
from engine.core.augmentation import preprocessed
from engine.models.base import ForwardContext
from engine.optim.precision import compute_dtype
from engine.reporting.html_page import ReportSection
from engine.runtime.scalars import as_int64
from engine.tasks.task import Task, TaskOutput

_ANY = "engine.reporting.any_section:section"  # the section of a task that names none
_MAX_BYTES = 1 << 30  # maximum size of the predictions that are kept for a report


class SplitPredictions(NamedTuple):
    """Predictions, targets and losses of the first n examples of a split, in file order.

    n is the number of all examples, unless the arrays exceed 1 GiB: then the remaining batches are
    left out.
    """

    split: str  # "test", or the name of a validation set
    predicted: Mapping[str, np.ndarray]  # as `Task.predict` returns it, [n, ...] each
    targets: Any  # nest of arrays [n, ...]
    losses: np.ndarray  # float32 [n]
    examples: int  # of the whole split
    source: pipelines.Source
    inputs: Callable[[np.ndarray], Any]  # indices int [k] -> nest of decoded inputs [k, ...]
    task: Task


class TaskSection(NamedTuple):
    """Report section, CSV files, scores and text about a task's predictions on a split."""

    section: ReportSection
    tables: Mapping[str, str]  # contents of CSV files beside the report, by file name
    values: Mapping[str, Any] = {}  # for the JSON that evaluation prints
    text: str = ""  # for evaluation to print on a terminal


def task_section(task: Task, of: SplitPredictions) -> TaskSection:
    """Builds the report section on predictions with the function that `task.section` names.

    If `task.section` is "", the section is that of `any_section`, which shows the losses.

    Args:
      task: task that made the predictions.
      of: predictions of a split.

    Raises:
      ValueError: if the data set is damaged.
      OSError: if a file of the data set cannot be read.
      ImportError, AttributeError: if there is no function `task.section`.
      Exception: if the function `task.section` raises it.
    """
    return import_attribute(task.section or _ANY)(of)


def predictions(
    parts: Parts, split: str, interrupted: Callable[[], bool]
) -> SplitPredictions | None:
    """Computes the predictions of a split; returns None if interrupted.

    Uses the weights and views that evaluation uses: with `--ema` and `--evaluate_ema`, the EMA of
    the weights. Runs on one device, even if the run uses several. Stops after the batch with which
    the predictions, targets and losses exceed 1 GiB.

    Args:
      parts: assembled run.
      split: name of a held-out split of the data set.
      interrupted: returns whether to stop; called before each batch.

    Raises:
      ValueError: if the data set is damaged.
      OSError: if a file of the data set cannot be read.
      RuntimeError: if TensorFlow fails to read or to evaluate the examples.
      tf.errors.OpError: if opening the feed fails, such as when a device runs out of memory.
    """
    config, source = parts.config, parts.source
    records = source.held_out[split]
    feed = data.open_split(config, source, records, parts.feed_kind)
    predict = _traced(parts, feed)
    batches, size = [], 0
    try:
        for step in range(feed.steps_per_epoch):
            if interrupted():
                return None
            if size > _MAX_BYTES:
                break
            found = predict(tf.constant(as_int64(step)), feed.open(step, 1).given)
            batches.append(tf.nest.map_structure(lambda each: each.numpy(), found))
            size += sum(each.nbytes for each in tf.nest.flatten(batches[-1]))
    except tf.errors.OpError as error:
        raise RuntimeError(f"{records.name} cannot be scored: {pipelines.reason(error)}") from error
    finally:
        feed.close()

    def joined(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts)[: feed.examples]  # the rest of the last batch is padding

    predicted, targets, losses = tf.nest.map_structure(joined, *batches)

    def inputs(indices: np.ndarray) -> Any:
        return pipelines.read_examples(source, records, indices, data.cache_dir(config)).inputs

    return SplitPredictions(
        split, predicted, targets, losses, feed.examples, source, inputs, parts.task
    )


def _traced(parts: Parts, feed: pipelines.Feed) -> Callable[..., Any]:
    """Returns a `tf.function` that computes the predictions, targets and losses of a batch.

    The function takes the step, int64 [], and `feed.open(step, 1).given`. It returns predictions
    {name: [rows, ...]}, a nest of targets [rows, ...], and losses [rows], including padding rows.
    """
    config, task = parts.config, parts.task
    model = parts.evaluated
    dtype = compute_dtype(config.precision.precision)

    @tf.function(autograph=False)
    def predict(step: tf.Tensor, opened: object) -> Any:
        batch = feed.batch(feed.next(opened), step, 0, 0)
        prepared = preprocessed(batch, None, parts.source.preprocess)
        context = ForwardContext(mask=batch.mask, dtype=dtype)
        seen: list[Any] = []

        def called(inputs: Any, context: Any = None) -> Any:
            seen.append(model(inputs, context))
            return seen[-1]

        output: TaskOutput = task(called, prepared, context)
        return dict(task.predict(seen[0])), batch.targets, output.losses

    return predict
