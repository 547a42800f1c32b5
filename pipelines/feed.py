"""The two feeds, and which to take.

`Resident` holds all examples, decoded, where the loop runs. `Stream` reads and decodes them as it
goes. Both see the same examples in the same order: a run gives the same bits with either.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pipelines import cache
from pipelines.decode import decode_all
from pipelines.plan import Layout, Plan
from pipelines.resident import Resident
from pipelines.source import Records, Source
from pipelines.stream import Stream


def choose_feed(kind: str, source: Source) -> tuple[str, int]:
    """What `--feed` means, and the bytes that the decoded splits take on each device.

    Args:
      kind: auto, resident or stream; auto is resident when the splits take no more than 2 GiB and
        a quarter of the free memory.
      source: the data set, with its splits.
    """
    splits = (source.train, source.validation, source.test)
    per_example = int(np.prod(source.image_shape)) * np.dtype(source.dtype).itemsize + 4
    needed = sum(len(split) * per_example for split in splits if split is not None)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if kind == "auto":
        kind = "resident" if needed <= min(2 << 30, free // 4) else "stream"
    return kind, needed


def open_feed(
    kind: str,
    source: Source,
    records: Records,
    *,
    global_batch_size: int,
    seed: int | None,
    layout: Layout,
    strategy: tf.distribute.Strategy,
    cache_dir: str,
    look_ahead: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Resident | Stream:
    """Makes the feed of a split.

    Args:
      kind: "resident" or "stream".
      source: the data set.
      records: the split.
      global_batch_size: examples of one full step, over all replicas.
      seed: of the order of each epoch; None: file order.
      layout: how a global batch is cut.
      strategy: whose devices are fed.
      cache_dir: where decoded examples, or where each lies, are kept between starts.
      look_ahead: whether a piece comes with the example after its last one.
      progress: told how many more examples are decoded, or found, now and then.

    Raises:
      ValueError: when the data is missing or damaged.
    """
    plan = Plan(
        examples=len(records),
        global_batch_size=global_batch_size,
        layout=layout,
        seed=seed,
        look_ahead=look_ahead,
    )
    if kind == "stream":
        return Stream(source, records, plan, strategy, cache_dir, progress)
    name = cache.key(records.ranges, source.recipe)
    decoded = cache.load(cache_dir, name)
    if decoded is None:
        decoded = decode_all(source, records, progress)
        cache.store(cache_dir, name, *decoded)
    return Resident(*decoded, plan, strategy)
