"""Chooses and opens a split's feed, in-memory or streaming; both give bitwise equal results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pipelines import cache
from pipelines.batch_layout import BatchLayout, BatchPlan
from pipelines.decode import decode_split
from pipelines.host import available_memory
from pipelines.resident import InMemoryFeed
from pipelines.source import DataSplit, Source
from pipelines.stream import StreamingFeed


def choose_feed(kind: str, source: Source) -> tuple[str, int]:
    """Returns the feed's kind, "resident" or "stream", and the size of all splits in bytes.

    The size is that of decoded examples, which a resident feed copies to each device. `kind` "auto"
    is "resident" if it is at most 2 GiB and a quarter of the host's free memory.
    """
    splits = (source.train, source.validation, source.test)
    per_example = int(np.prod(source.image_shape)) * np.dtype(source.dtype).itemsize + 4
    needed = sum(len(split) * per_example for split in splits if split is not None)
    if kind == "auto":
        kind = "resident" if needed <= min(2 << 30, available_memory() // 4) else "stream"
    return kind, needed


def open_feed(
    kind: str,
    source: Source,
    records: DataSplit,
    *,
    global_batch_size: int,
    seed: int | None,
    layout: BatchLayout,
    strategy: tf.distribute.Strategy,
    cache_dir: str,
    include_next_example: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> InMemoryFeed | StreamingFeed:
    """Opens the feed of a split: in-memory if `kind` is "resident", streaming if "stream".

    Batches follow `BatchPlan`. Decoded examples and record indices are cached in `cache_dir`. Calls
    `progress` periodically with the number of examples decoded or indexed since the last call.

    Raises:
      ValueError: when the data is missing or damaged.
    """
    plan = BatchPlan(
        examples=len(records),
        global_batch_size=global_batch_size,
        layout=layout,
        seed=seed,
        include_next_example=include_next_example,
    )
    if kind == "stream":
        return StreamingFeed(source, records, plan, strategy, cache_dir, progress)
    name = cache.key(records.ranges, source.recipe)
    decoded = cache.load(cache_dir, name)
    if decoded is None:
        decoded = decode_split(source, records, progress)
        cache.store(cache_dir, name, *decoded)
    return InMemoryFeed(*decoded, plan, strategy)
