"""Options -> what a run is fed: its data set, and a feed of each split."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

import pipelines
from engine.config import Config
from engine.keeping.progress import Progress


class Feeds(NamedTuple):
    """Of the splits of a run.

    training: of what is trained on, shuffled every epoch.
    held_out: "validation" and "test", where there is such a split, in file order.
    """

    training: pipelines.Feed
    held_out: dict[str, pipelines.Feed]

    def close(self) -> None:
        """Stops those that read ahead."""
        for feed in (self.training, *self.held_out.values()):
            feed.close()


def cache_dir(config: Config) -> str:
    """Where what is decoded is kept between starts."""
    return config.data.cache_dir or pipelines.default_cache_dir()


def open_source(config: Config) -> pipelines.Source:
    """The data set and its splits, as the options say.

    Raises:
      ValueError: for one that is not there or is damaged.
    """
    # Evaluating and predicting put --split in the place of the run's test split.
    asked = config.using.split and config.using.split == config.data.test_split
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
    look_ahead: bool,
) -> Feeds:
    """The feeds of a run.

    Args:
      config: all options.
      source: its data set.
      kind: "resident" or "stream".
      strategy: over whose replicas batches are cut.
      shards: of each micro-batch, over all replicas; 0: one a replica.
      look_ahead: whether training wants to see the batch behind the one that it is at.

    Raises:
      ValueError: when a split is damaged.
      OSError: when it cannot be read.
    """
    training = config.training
    layout = pipelines.Layout(strategy.num_replicas_in_sync, training.accumulate, shards)
    trained_on = _opened(
        config, source, source.train, kind, strategy, layout, config.run.seed, look_ahead
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
    config: Config, source: pipelines.Source, records: pipelines.Records, kind: str
) -> pipelines.Feed:
    """A feed of any split for one device, in file order, in batches as evaluation takes them."""
    alone = tf.distribute.get_strategy()
    return _opened(config, source, records, kind, alone, pipelines.Layout())


def _opened(
    config: Config,
    source: pipelines.Source,
    records: pipelines.Records,
    kind: str,
    strategy: tf.distribute.Strategy,
    layout: pipelines.Layout,
    seed: int | None = None,
    look_ahead: bool = False,
) -> pipelines.Feed:
    """With progress where it has to be decoded first; `seed`: of its order, where there is one."""
    sizes, shown = config.training, config.keeping.progress
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
            look_ahead=look_ahead,
            strategy=strategy,
            cache_dir=cache_dir(config),
            progress=progress.advance,
        )
    finally:
        progress.close()
