"""Makes the statistics of averaged weights again, by a pass over the training split of the run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import tensorflow as tf

import pipelines
from engine.assembly import data
from engine.checkpoint.checkpoint_file import CheckpointContents
from engine.config.schema import Config
from engine.core.statistics_pass import StatisticsPass
from engine.distributed import strategies
from engine.logging.progress import Progress
from engine.models.properties import statistics
from engine.optim.precision import compute_dtype
from engine.tasks.task import Task


def renew_statistics(
    config: Config,
    model: tf.Module,
    task: Task,
    contents: CheckpointContents,
    strategy: tf.distribute.Strategy,
    *,
    source: pipelines.Source | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Makes the statistics of a model again, on the preprocessed training split of the run.

    The pass over the split has the batches of training, without augmentation; see `StatisticsPass`.
    The examples are streamed, so memory does not grow with the data set. A model without statistics
    is not changed, and the data set is not opened. Shows a progress bar.

    Args:
      config: options of the run.
      model: model with averaged weights; its statistics are assigned.
      task: task, which calls the model.
      contents: the averaged checkpoint, whose metadata identify the training data.
      strategy: strategy in whose scope the variables were created.
      source: data set of the run; None: it is opened if it is needed.
      interrupted: returns whether to stop the pass; the statistics are then those of `contents`.

    Raises:
      ValueError: if the data set is not that of the run or cannot be used, or if a statistic is not
        finite.
      OSError: if the data set cannot be read.
      RuntimeError, tf.errors.OpError: if TensorFlow fails.
    """
    if not statistics(model):
        return
    source = source or pipelines.fitted(data.open_source(config), data.cache_dir(config))
    source = dataclasses.replace(source, crop=None)  # without augmentation
    identity = pipelines.data_identity(source, data.cache_dir(config))
    if not identity.matches(pipelines.DataIdentity(**contents.facts["data"])):
        raise ValueError(
            f"--weights={config.run.weights}: makes the statistics of the network again on the "
            "training data, and the data set is not the one that the run was trained on; put it "
            "back, or give --weights=best"
        )
    shards = strategies.check_shards(config.devices.shards, strategy)
    feed = data.open_training(config, source, strategy, shards=shards)
    progress = Progress(config.logging.progress, "statistics", feed.steps_per_epoch)
    with contextlib.closing(feed), contextlib.closing(progress):
        StatisticsPass(
            strategy=strategy,
            feed=feed,
            model=model,
            task=task,
            seed=config.run.seed,
            dtype=compute_dtype(config.precision.precision),
            preprocess=source.preprocess,
        ).run(interrupted, progress.advance)
