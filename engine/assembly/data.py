"""Opens a run's data set and the feeds of its splits, as the options specify."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

import pipelines
from engine.config.schema import Config
from engine.logging.progress import Progress


class Feeds(NamedTuple):
    """The feeds of a run's splits.

    Attributes:
      training: feed of the training split, shuffled every epoch.
      held_out: feeds in file order, by split: "validation" and "test", if the run has them.
    """

    training: pipelines.Feed
    held_out: dict[str, pipelines.Feed]

    def close(self) -> None:
        """Closes all feeds, which stops their prefetching."""
        for feed in (self.training, *self.held_out.values()):
            feed.close()


def cache_dir(config: Config) -> str:
    """Returns the directory where decoded examples are cached between runs."""
    return config.data.cache_dir or pipelines.default_cache_dir()


def open_source(config: Config) -> pipelines.Source:
    """Opens the data set and its splits, as the options specify.

    Raises:
      ValueError: when the data set is missing or damaged.
    """
    # Evaluation and prediction set the test split with --split: messages then name that flag.
    asked = config.report.split and config.report.split == config.data.test_split
    return pipelines.open_source(
        config.data.dataset,
        data_dir=config.data.data_dir or None,
        cache_dir=cache_dir(config),
        train_split=config.data.train_split,
        validation_split=config.data.validation_split,
        test_split=config.data.test_split,
        test_flag="split" if asked else "test_split",
        image_size=config.data.image_size or None,  # type: ignore[arg-type]
        fit=config.data.fit,
        antialias=config.data.antialias,
    )


def open_feeds(
    config: Config,
    source: pipelines.Source,
    kind: str,
    strategy: tf.distribute.Strategy,
    *,
    shards: int,
    include_next_example: bool,
) -> Feeds:
    """Opens the feeds of a run.

    Args:
      config: all options.
      source: data set of the run.
      kind: "resident" (in-memory feed) or "stream" (streaming feed).
      strategy: strategy whose replicas share each batch.
      shards: number of shards of each micro-batch, over all replicas; 0: one per replica.
      include_next_example: whether a local training micro-batch also has the example after its
        last, for mixup.

    Raises:
      ValueError: when a split is damaged.
      OSError: when a split cannot be read.
    """
    training = config.training
    layout = pipelines.BatchLayout(strategy.num_replicas_in_sync, training.accumulate, shards)
    trained_on = _opened(
        config, source, source.train, kind, strategy, layout, config.run.seed, include_next_example
    )
    once = layout._replace(micro_batches=1)
    splits = {"validation": source.validation, "test": source.test}
    held_out = {
        split: _opened(config, source, records, kind, strategy, once)
        for split, records in splits.items()
        if records is not None
    }
    return Feeds(trained_on, held_out)


def open_split(
    config: Config, source: pipelines.Source, records: pipelines.DataSplit, kind: str
) -> pipelines.Feed:
    """Opens a feed of any split for one device, in file order, with the evaluation batch size."""
    alone = tf.distribute.get_strategy()
    return _opened(config, source, records, kind, alone, pipelines.BatchLayout())


def _opened(
    config: Config,
    source: pipelines.Source,
    records: pipelines.DataSplit,
    kind: str,
    strategy: tf.distribute.Strategy,
    layout: pipelines.BatchLayout,
    seed: int | None = None,
    include_next_example: bool = False,
) -> pipelines.Feed:
    """Opens a feed and displays decoding progress; `seed`: seed of the order, None: file order."""
    sizes, shown = config.training, config.logging.progress
    progress = Progress(shown, f"decoding {records.name}", len(records), unit="examples")
    batch = sizes.evaluation_batch_size if seed is None else sizes.global_batch_size
    try:
        return pipelines.open_feed(
            kind,
            source,
            records,
            global_batch_size=batch,
            seed=seed,
            layout=layout,
            include_next_example=include_next_example,
            strategy=strategy,
            cache_dir=cache_dir(config),
            progress=progress.advance,
        )
    finally:
        progress.close()
