"""Chooses and opens a split's feed, in-memory or streaming; both give bitwise equal results."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from pipelines import nests
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from pipelines.feeds.stream import StreamingFeed
from pipelines.host import available_memory
from pipelines.nests import Nest
from pipelines.sequential import SequentialSplit
from pipelines.source import Source
from pipelines.splits import DataSplit, no_progress
from pipelines.storage import cache
from pipelines.storage.decode import decode_split


def choose_feed(kind: str, source: Source) -> tuple[str, int]:
    """Returns the type of feed, "resident" or "stream", and the size of all splits in bytes.

    The size is that of decoded examples, which a resident feed copies to each device. `kind` is one
    of these types, or "auto": "resident" if the size is at most 2 GiB and a quarter of the host's
    available memory.

    Raises:
      ValueError: for "resident" if the source is a tf.data pipeline.
    """
    needed = sum(map(len, source.splits.values())) * nests.example_bytes(source.decoded)
    if feed_kinds(source) == ("stream",):
        if kind == "resident":
            why = "--augment=resized_crop crops pictures where they are decoded, in a stream"
            if source.crop is None:
                why = f"{source.name} is a tf.data pipeline, which is streamed"
            raise ValueError(f"--feed=resident: {why}: give --feed=stream")
        kind = "stream"
    if kind == "auto":
        kind = "resident" if needed <= min(2 << 30, available_memory() // 4) else "stream"
    return kind, needed


def feed_kinds(source: Source) -> tuple[str, ...]:
    """Returns the types of feeds, "resident" and "stream", that can read a training split."""
    streamed = isinstance(source.train, SequentialSplit) or source.crop is not None
    return ("stream",) if streamed else ("resident", "stream")


def open_feed(
    kind: str,
    source: Source,
    split: DataSplit,
    *,
    global_batch_size: int,
    seed: int | None,
    layout: BatchLayout,
    strategy: tf.distribute.Strategy,
    cache_dir: str,
    include_next_example: bool = False,
    progress: Callable[[int], None] = no_progress,
) -> InMemoryFeed | StreamingFeed:
    """Opens the feed of a split: in-memory if `kind` is "resident", streaming if "stream".

    Batches follow `BatchPlan`. Decoded examples and record indices are cached in `cache_dir`. Calls
    `progress` periodically with the number of examples decoded or indexed since the last call.

    Raises:
      ValueError: when the data is missing or damaged.
    """
    plan = BatchPlan(
        examples=len(split),
        global_batch_size=global_batch_size,
        layout=layout,
        seed=seed,
        include_next_example=include_next_example,
    )
    if kind == "stream":
        return StreamingFeed(source, split, plan, strategy, cache_dir, progress)
    if source.decode is None:  # nothing to save by a copy on disk
        return InMemoryFeed(*decode_split(source, split, progress), plan, strategy)
    name = cache.key(split, source.recipe)
    decoded: tuple[Nest, Nest] | None = cache.load(cache_dir, name, source.decoded)
    if decoded is None:
        decoded = decode_split(source, split, progress)
        cache.store(cache_dir, name, decoded)
    return InMemoryFeed(*decoded, plan, strategy)
