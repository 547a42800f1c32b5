"""Opens a run's data set and the feeds of its splits, as the options specify."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import NamedTuple

import tensorflow as tf

import pipelines
from engine.assembly.registry import SOURCES
from engine.config.schema import Config
from engine.logging.progress import Progress
from engine.runtime.user_code import place, user_code_location

_LONG = 20.0  # seconds of opening a feed after which a line says what took so long


class Feeds(NamedTuple):
    """The feeds of a run, one per split; each supplies batches of examples."""

    training: pipelines.Feed  # shuffled every epoch
    held_out: dict[str, pipelines.Feed]  # in file order, by name, as `Source.held_out`


def cache_dir(config: Config) -> str:
    """Returns the path of the directory where decoded data is cached between runs.

    This is `--cache_dir` or, if that is empty, `pipelines.default_cache_dir()`.
    """
    return config.data.cache_dir or pipelines.default_cache_dir()


def open_source(config: Config, *, prepared_only: bool = False) -> pipelines.Source:
    """Opens the data set and splits that the options select; prepares a TFDS data set if needed.

    With `--evaluation_examples`, the validation sets have only so many of their examples.

    Args:
      config: options of the run.
      prepared_only: whether a TFDS data set that is not prepared on disk is an error.

    Raises:
      ValueError: if the data set or a split cannot be used, or if `--augment` does not apply to the
        examples; of a user's source, the message starts with its place.
    """
    # Evaluation and prediction set the test split with --split: messages then name that flag.
    options, split = config.data, config.report.split
    given = pipelines.SourceOptions(
        data_dir=options.data_dir or None,
        cache_dir=cache_dir(config),
        train_split=options.train_split,
        validation_split=options.validation_sets,
        test_split=options.test_split,
        test_flag="split" if split and split == options.test_split else "test_split",
        input_features=options.input_features,
        target_features=options.target_features,
        image_size=options.image_size or None,  # type: ignore[arg-type]
        fit=options.fit,
        antialias=options.antialias,
        scale=options.scale,
        context=options.context,
        tokens=options.tokens,
        prepared_only=prepared_only,
        allow_overlap=options.allow_overlap,
        skip_damaged=options.skip_damaged,
        registered=SOURCES.added,
    )
    registered = None
    if options.dataset in SOURCES:
        registered = functools.partial(SOURCES[options.dataset], **config.arguments_of("dataset"))
    try:
        source = pipelines.open_dataset(options.dataset, given, registered)
    except ValueError as error:
        if registered is None or user_code_location(error):
            raise
        raise ValueError(f"{source_place(config)}{error}") from error
    source = pipelines.with_selected(source, config.evaluation.evaluation_examples)
    return pipelines.with_crop(source, options.augment)


def source_place(config: Config) -> str:
    """Returns the place of a user's source that `--dataset` names, as "my.py:12: ", or ""."""
    name = config.data.dataset
    return place(SOURCES[name]) if name in SOURCES else ""


def open_feeds(
    config: Config,
    source: pipelines.Source,
    kind: str,
    strategy: tf.distribute.Strategy,
    *,
    shards: int,
    augmentation: pipelines.Augmentation | None,
) -> Feeds:
    """Opens the feeds of all splits of a run.

    Args:
      config: options of the run.
      source: data set of the run.
      kind: "resident" (decoded examples are kept in memory) or "stream" (decoded during training).
      strategy: strategy whose replicas share each batch.
      shards: number of shards of each micro-batch, over all replicas; 0: one per replica.
      augmentation: augmentation of the batches of the training split; None: none.

    Raises:
      ValueError: if the data of a split is missing or damaged.
      OSError: if a file of a split cannot be read.
      tf.errors.OpError: if TensorFlow fails, for example when a device runs out of memory.
    """
    replicas, seed = strategy.num_replicas_in_sync, config.run.seed
    layout = pipelines.BatchLayout(replicas, config.training.accumulate, shards)
    training = _open_feed(config, source, source.train, kind, strategy, layout, seed, augmentation)
    layout = layout._replace(micro_batches=1)
    held_out = {
        split: _open_feed(config, source, records, kind, strategy, layout)
        for split, records in source.held_out.items()
    }
    return Feeds(training, held_out)


def open_training(
    config: Config, source: pipelines.Source, strategy: tf.distribute.Strategy, *, shards: int
) -> pipelines.Feed:
    """Opens a streaming feed of the training split alone, with the batches of training.

    Arguments and errors are as in `open_feeds`.
    """
    layout = pipelines.BatchLayout(
        strategy.num_replicas_in_sync, config.training.accumulate, shards
    )
    return _open_feed(config, source, source.train, "stream", strategy, layout, config.run.seed)


def open_split(
    config: Config, source: pipelines.Source, records: pipelines.DataSplit, kind: str
) -> pipelines.Feed:
    """Opens the feed of one split for evaluation on one device, with examples in file order.

    A batch has `--evaluation_batch_size` examples. `kind` and the errors are as in `open_feeds`.
    """
    strategy = tf.distribute.get_strategy()
    return _open_feed(config, source, records, kind, strategy, pipelines.BatchLayout())


def _open_feed(
    config: Config,
    source: pipelines.Source,
    records: pipelines.DataSplit,
    kind: str,
    strategy: tf.distribute.Strategy,
    layout: pipelines.BatchLayout,
    seed: int | None = None,
    augmentation: pipelines.Augmentation | None = None,
) -> pipelines.Feed:
    """Opens the feed of a split; shows a progress bar while examples are decoded or indexed.

    If a streaming feed takes more than 20 seconds, prints a line that says where its index is kept.

    With `seed`, the order of examples is shuffled in each epoch, and a batch has
    `--global_batch_size` examples. If `seed` is None, the order is that of the file, and a batch
    has `--evaluation_batch_size` examples.
    """
    sizes, mode = config.training, config.logging.progress
    batch_size = sizes.evaluation_batch_size if seed is None else sizes.global_batch_size
    verb = "indexing" if kind == "stream" else "decoding"
    progress = Progress(mode, f"{verb} {records.name}", len(records), unit="examples")
    begun = time.monotonic()
    with contextlib.closing(progress):
        feed = pipelines.open_feed(
            kind,
            source,
            records,
            global_batch_size=batch_size,
            seed=seed,
            layout=layout,
            include_next_example=augmentation is not None and augmentation.mixes,
            include_fixed=augmentation is not None and augmentation.alternates,
            strategy=strategy,
            cache_dir=cache_dir(config),
            progress=progress.advance,
        )
        seconds = time.monotonic() - begun
        if kind == "stream" and seconds > _LONG:
            progress.line(
                f"data   indexed {len(records):,} examples of {records.name} in {seconds:.0f} s; "
                f"the index is kept in {cache_dir(config)} for later runs"
            )
        return feed
