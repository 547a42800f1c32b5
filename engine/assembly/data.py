"""The data set of a run and the feeds of its splits, opened as the options specify."""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple

import tensorflow as tf

import pipelines
from engine.assembly.registry import SOURCES
from engine.config.schema import Config
from engine.logging.progress import Progress


class Feeds(NamedTuple):
    """The feeds of a run, which read batches from its splits."""

    training: pipelines.Feed  # shuffled every epoch
    held_out: dict[str, pipelines.Feed]  # in file order; "validation" and "test", if they exist


def cache_dir(config: Config) -> str:
    """Returns the directory where decoded examples are cached between runs."""
    return config.data.cache_dir or pipelines.default_cache_dir()


def open_source(config: Config, *, prepared_only: bool = False) -> pipelines.Source:
    """Opens the configured data set and splits; ValueError if one cannot be used.

    With `prepared_only`, that includes a data set that is not on disk.
    """
    # Evaluation and prediction set the test split with --split: messages then name that flag.
    options, split = config.data, config.report.split
    given = pipelines.SourceOptions(
        data_dir=options.data_dir or None,
        cache_dir=cache_dir(config),
        train_split=options.train_split,
        validation_split=options.validation_split,
        test_split=options.test_split,
        test_flag="split" if split and split == options.test_split else "test_split",
        input_features=options.input_features,
        target_features=options.target_features,
        image_size=options.image_size or None,  # type: ignore[arg-type]
        fit=options.fit,
        antialias=options.antialias,
        scale=options.scale,
        prepared_only=prepared_only,
        allow_overlap=options.allow_overlap,
        skip_damaged=options.skip_damaged,
        registered=SOURCES.added,
    )
    registered = None
    if options.dataset in SOURCES:
        registered = functools.partial(SOURCES[options.dataset], **config.arguments_of("dataset"))
    source = pipelines.open_dataset(options.dataset, given, registered)
    return pipelines.with_crop(source, options.augment)


def open_feeds(
    config: Config,
    source: pipelines.Source,
    kind: str,
    strategy: tf.distribute.Strategy,
    *,
    shards: int,
    include_next_example: bool,
) -> Feeds:
    """Opens the feeds of all splits; `kind` is "resident" (in memory) or "stream" (from disk).

    With `include_next_example`, as for mixup, a replica's training batches have one row more, the
    next example. Each micro-batch has `shards` shards over all replicas; 0: one per replica. A
    damaged split is a ValueError, and one that cannot be read an OSError.
    """
    replicas, seed = strategy.num_replicas_in_sync, config.run.seed
    layout = pipelines.BatchLayout(replicas, config.training.accumulate, shards)
    training = _open_feed(
        config, source, source.train, kind, strategy, layout, seed, include_next_example
    )
    layout = layout._replace(micro_batches=1)
    held_out = {
        split: _open_feed(config, source, records, kind, strategy, layout)
        for split, records in (("validation", source.validation), ("test", source.test))
        if records is not None
    }
    return Feeds(training, held_out)


def open_split(
    config: Config, source: pipelines.Source, records: pipelines.DataSplit, kind: str
) -> pipelines.Feed:
    """Opens a feed of a split for one device, in file order, with the evaluation batch size."""
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
    include_next_example: bool = False,
) -> pipelines.Feed:
    """Opens a feed and shows decoding progress; without `seed`, examples are in file order."""
    sizes, mode = config.training, config.logging.progress
    batch_size = sizes.evaluation_batch_size if seed is None else sizes.global_batch_size
    progress = Progress(mode, f"decoding {records.name}", len(records), unit="examples")
    with contextlib.closing(progress):
        return pipelines.open_feed(
            kind,
            source,
            records,
            global_batch_size=batch_size,
            seed=seed,
            layout=layout,
            include_next_example=include_next_example,
            strategy=strategy,
            cache_dir=cache_dir(config),
            progress=progress.advance,
        )
