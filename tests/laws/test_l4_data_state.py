"""Tests of law L4: the examples of a step are a pure function of the seed and the step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import default_cache_dir, open_feed, permutation
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.sources.tfds import open_source


def rows_of(feed, step: int, steps: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (images, labels) of the valid rows of each of `steps` steps from `step`.

    The feed has one replica.
    """
    found = []
    while steps:
        taken, given = feed.open(step, steps)
        for at in range(step, step + taken):
            batch = feed.batch(feed.next(given), tf.constant(at, tf.int64), 0)
            valid = batch.mask.numpy() > 0
            found.append((batch.inputs.numpy()[valid], batch.targets.numpy()[valid]))
        step, steps = step + taken, steps - taken
    return found


@pytest.fixture(scope="module")
def feeds(cache_dir):
    source = open_source("digits", data_dir=None, cache_dir=cache_dir)

    def make(kind: str, seed: int | None = 3):
        return open_feed(
            kind,
            source,
            source.train,
            global_batch_size=100,
            seed=seed,
            layout=BatchLayout(),
            strategy=tf.distribute.get_strategy(),
            cache_dir=cache_dir,
        )

    return make


def test_feeds_agree(feeds):
    """The resident and the streaming feed return the same examples in the same order."""
    resident, stream = feeds("resident"), feeds("stream")
    assert resident.steps_per_epoch == stream.steps_per_epoch == 13
    for step in range(26):
        (images, labels), (streamed, streamed_labels) = (
            rows_of(feed, step)[0] for feed in (resident, stream)
        )
        assert np.array_equal(images, streamed)
        assert np.array_equal(labels, streamed_labels)


@pytest.mark.parametrize("steps", [1, 4, 13])
def test_stream_table_sizes(feeds, steps, monkeypatch):
    """The streaming feed returns the same batches for any number of steps per prefetched block."""
    monkeypatch.setattr("pipelines.feeds.stream._TABLE", steps * 100 * 64)
    stream, resident = feeds("stream"), feeds("resident")
    for step in [*range(30), 28, 26, 5, 40, 6]:  # in order, back within a table, and random access
        left, (_, (images, _)) = stream.open(step, 99)
        assert left == steps - step % steps
        assert len(images) - steps * 100 in range(64)
        for one, other in zip(rows_of(resident, step)[0], rows_of(stream, step)[0], strict=True):
            assert np.array_equal(one, other)


def test_stream_reuses_iterator(feeds, monkeypatch):
    """Without shuffling, the streaming feed uses one iterator for all epochs."""
    monkeypatch.setattr("pipelines.feeds.stream._TABLE", 4 * 100 * 64)
    stream, resident = feeds("stream", None), feeds("resident", None)
    expected = rows_of(resident, 0, 13)
    for epoch in range(3):
        for found, wanted in zip(rows_of(stream, 0, 13), expected, strict=True):
            assert np.array_equal(found[0], wanted[0]) and np.array_equal(found[1], wanted[1])
        if not epoch:
            iterator = stream._iterator
        assert stream._iterator is iterator


@pytest.mark.parametrize("kind", ["resident", "stream"])
def test_feed_opens_at_any_step(feeds, kind):
    """A feed opened at step 19 returns the same batch as a feed that was read from step 0 to 19."""
    through, fresh = feeds(kind), feeds(kind)
    for step in range(20):
        seen = rows_of(through, step)[0]
    again = rows_of(fresh, 19)[0]
    assert np.array_equal(seen[0], again[0])
    assert np.array_equal(seen[1], again[1])


@pytest.mark.parametrize("kind", ["resident", "stream"])
def test_epoch_is_permutation(feeds, kind):
    """An epoch has each example once, in the order of `permutation`; epochs differ in order."""
    feed = feeds(kind)
    epochs = []
    for epoch in range(2):
        parts = rows_of(feed, 13 * epoch, 13)
        epochs.append(np.concatenate([images for images, _ in parts]))
    in_file_order = np.concatenate([images for images, _ in rows_of(feeds(kind, None), 0, 13)])
    assert len(in_file_order) == feed.examples
    for epoch, seen in enumerate(epochs):
        assert np.array_equal(seen, in_file_order[permutation(3, epoch, feed.examples)])
    assert not np.array_equal(epochs[0], epochs[1])


@given(
    examples=st.integers(1, 60),
    batch=st.integers(1, 70),
    replicas=st.integers(1, 5),
)
@settings(max_examples=80, derandomize=True)
def test_plan_covers_epoch_once(examples, batch, replicas):
    """Any batch size on any number of replicas covers each position of the epoch once."""
    plan = BatchPlan(
        examples=examples, global_batch_size=batch, layout=BatchLayout(replicas), seed=1
    )
    seen = []
    for step in range(plan.steps_per_epoch):
        in_batch = 0
        for replica in range(replicas):
            first, places, valid = plan.positions(step, replica, 0, np.arange(plan.rows))
            assert first == replica * plan.rows
            seen += plan.order(0)[places[valid]].tolist()
            in_batch += int(valid.sum())
        assert in_batch == min(batch, examples - step * batch)
    assert sorted(seen) == list(range(examples))


def test_default_cache_dir():
    assert default_cache_dir().endswith("tapeline")
