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


def choose_feed(
    kind: str, source: Source, fits: Callable[[int], bool] = lambda size: True
) -> tuple[str, int]:
    """Returns the type of feed, "resident" or "stream", and the size of all splits in bytes.

    The size is that of the decoded examples of all splits, which resident feeds copy to each
    device. `kind` is one of the types, or "auto": "resident" if the source allows it (see
    `feed_kinds`) and the size is at most 2 GiB and at most a quarter of the host's available
    memory, and `fits(size)` is true, else "stream". `fits` tells whether each device has room for
    the size beside the model; it is called only if all else holds.

    Raises:
      ValueError: for "resident" if the source is a tf.data pipeline or crops images at decoding.
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
        on_host = needed <= min(2 << 30, available_memory() // 4)
        kind = "resident" if on_host and fits(needed) else "stream"
    return kind, needed


def feed_kinds(source: Source) -> tuple[str, ...]:
    """Returns the types of feeds that can read the training split: "resident" and "stream".

    For a tf.data pipeline, and for images that are cropped at decoding, "stream" is the only type.
    """
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
    include_fixed: bool = False,
    progress: Callable[[int], None] = no_progress,
) -> InMemoryFeed | StreamingFeed:
    """Opens the feed of a split: in-memory if `kind` is "resident", streaming if "stream".

    Batches follow `BatchPlan`. An in-memory feed decodes all examples, or loads them from the
    cache, before this returns.

    Args:
      kind: "resident" or "stream".
      source: the data set.
      split: a split of the data set.
      global_batch_size: number of examples of a step, over all replicas.
      seed: seed of the order of each epoch; None: file order in every epoch.
      layout: division of a global batch into micro-batches and shards.
      strategy: strategy whose replicas compute the batches.
      cache_dir: directory where decoded examples and record indices are cached.
      include_next_example: whether a local micro-batch has one more row, the next example of the
        epoch, as for mixup.
      include_fixed: whether a batch has a random number of each example, `Batch.fixed`.
      progress: called periodically with the number of examples decoded or indexed since the last
        call.

    Raises:
      ValueError: when the data is missing or damaged, or the split or a batch is empty.
      OSError: when a file cannot be read.
    """
    if include_fixed and isinstance(split, SequentialSplit):
        raise ValueError(
            f"--augment=flip:alternating: {source.name} is a tf.data pipeline, of which no example "
            "is known again in the next epoch; give flip"
        )
    plan = BatchPlan(
        examples=len(split),
        global_batch_size=global_batch_size,
        layout=layout,
        seed=seed,
        include_next_example=include_next_example,
        include_fixed=include_fixed,
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
