"""Sources of more examples than int32 can number: orders, splits and the streaming feed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from pipelines import BatchLayout, data_identity, order, random_access
from pipelines.feeds.feed import choose_feed, open_feed
from pipelines.rows import Rows
from pipelines.selection import with_selected
from pipelines.sources.description import SourceOptions
from tests.harness import strategy_of

HUGE = 3 * 10**9
BATCH = 10


def read(number: int):
    # As large as a picture, or a block of the stream would have 52,000 steps.
    return np.full(50_000, number % 251, np.float32), np.int64(number)


def opened(shuffle: bool, version: str = "1", **options):
    described = random_access(examples=HUGE, read=read, version=version, shuffle=shuffle)
    return described.open("huge", SourceOptions(cache_dir="unused", test_split="", **options))


def feed_of(source, split, strategy, layout, seed=5):
    return open_feed(
        "stream",
        source,
        split,
        global_batch_size=BATCH,
        seed=seed,
        layout=layout,
        strategy=strategy,
        cache_dir="unused",
    )


def examples_of(feed, strategy):
    """Returns a function of a step: numbers of its examples, in the order of the global batch."""

    @tf.function(autograph=False)
    def rows(given, step):
        element = feed.next(given)

        def of_replica(element):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            parts = [
                feed.batch(element, step, replica, part)
                for part in range(feed.layout.local_micro_batches)
            ]
            return [(part.targets, part.mask, part.row) for part in parts]

        return strategy.run(of_replica, [element])

    def numbers(step):
        found = {}
        leaves = rows(feed.open(step, 1).given, tf.constant(step, tf.int64))
        for part in leaves:
            each = map(strategy.experimental_local_results, part)
            for targets, mask, first in zip(*each, strict=True):
                valid = mask.numpy() > 0
                for place, number in enumerate(targets.numpy()[valid].tolist()):
                    found[int(first) + place] = number
        return [found[place] for place in sorted(found)]

    return numbers


@pytest.mark.parametrize(
    ("replicas", "shards", "shuffle"), [(1, 0, True), (1, 2, False), (2, 0, False), (2, 2, True)]
)
def test_stream_has_examples_of_order(replicas, shards, shuffle):
    """The batches are those of the order, at any step, for all replicas and shards."""
    source = opened(shuffle, validation_split="0.1")
    strategy = strategy_of(replicas)
    feed = feed_of(source, source.train, strategy, BatchLayout(replicas, shards=shards))
    numbers = examples_of(feed, strategy)
    train = len(source.train)
    assert train == 27 * 10**8 and feed.steps_per_epoch == train // BATCH
    largest = 0
    for step in (1, train // BATCH - 1, 7 * train // BATCH + 3):
        epoch, within = divmod(step, feed.steps_per_epoch)
        positions = np.arange(within * BATCH, (within + 1) * BATCH)
        rows = source.train.rows[order.permutation_at(5, epoch, train, positions)]
        assert numbers(step) == rows.tolist()
        largest = max(largest, rows.max())
    assert largest > 2**31
    feed.close()


@pytest.mark.parametrize("shuffle", [False, True])
def test_splits(shuffle):
    """Splits share no example, without an array of them; a selection is spread over its split."""
    source = opened(shuffle, validation_split={"a": "0.2", "b": "0.1"})
    splits = list(source.splits.values())
    assert sum(map(len, splits)) == HUGE
    for i, one in enumerate(splits):
        assert one.repeated() == 0
        for other in splits[:i]:
            assert one.in_common(other) == other.in_common(one) == 0
        part = one.part(len(one) // 2, len(one), "half")
        assert part.in_common(one) == len(one) - len(one) // 2
    places = [np.linspace(0, len(each) - 1, 1000).astype(np.int64) for each in splits]
    rows = np.concatenate([each.rows[at] for each, at in zip(splits, places, strict=True)])
    assert len(np.unique(rows)) == 3000 and rows.min() >= 0 and 2**31 < rows.max() < HUGE
    selected = with_selected(source, 50).validation_sets["a"]
    chosen = selected.reader().read(np.arange(50))[1]
    assert len(selected) == len(np.unique(chosen)) == 50
    assert choose_feed("auto", source)[0] == "stream"


def test_identity(tmp_path):
    """The digest tells orders, splits and versions apart, and reads no array of rows."""
    found = {
        data_identity(opened(shuffle, version, validation_split=part), str(tmp_path)).files
        for shuffle in (False, True)
        for version in ("1", "2", "")
        for part in ("0.1", "0.2")
    }
    assert len(found) == 12
    again = data_identity(opened(True, "2", validation_split="0.1"), str(tmp_path)).files
    assert again in found


@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_like_an_array(shuffle):
    """Small tables have the rows of earlier versions: checkpoints hold their digests."""
    expected = np.random.default_rng(0).permutation(50) if shuffle else np.arange(50)
    rows = Rows(50, shuffle)
    assert np.array_equal(rows, expected) and list(rows) == expected.tolist()
    for part in (slice(3, 40), slice(None, 7), slice(45, None), slice(9, 9)):
        assert np.array_equal(rows[part], expected[part])
        assert len(rows[part]) == len(expected[part])
        assert np.array_equal(rows[part][1:4], expected[part][1:4])
    assert rows[7] == expected[7] and np.array_equal(rows[[4, 2]], expected[[4, 2]])
    assert rows[3:20].in_common(rows[10:30]) == 10 and rows[3:5].in_common(rows[7:9]) == 0
    assert rows.in_common(Rows(50, not shuffle)) is None
