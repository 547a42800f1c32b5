"""Feeds for GPUs hold integers in another form, from which the batches have the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import BatchLayout, open_feed
from pipelines.feeds import gatherable, stream
from pipelines.sources.tfds import open_source
from tests.choices import choices
from tests.harness import strategy_of

INTEGERS = [tf.uint8, tf.int8, tf.uint16, tf.int16, tf.int32, tf.uint32, tf.int64, tf.uint64]
OTHERS = [tf.bool, tf.float16, tf.bfloat16, tf.float32, tf.float64]
BATCH, STEPS = 100, 20  # examples; 15 steps an epoch


@pytest.mark.parametrize("shape", [[], [1], [3, 5], [2, 8], [0]], ids=str)
@pytest.mark.parametrize("dtype", [*INTEGERS, *OTHERS], ids=lambda dtype: dtype.name)
def test_restores_rows(dtype, shape):
    """Gathered rows have the bits, dtype and shape of the examples."""
    size = int(np.prod([6, *shape])) * dtype.size
    data = np.random.default_rng(0).integers(0, 2 if dtype == tf.bool else 256, size, np.uint8)
    rows = tf.constant(data.view(dtype.as_numpy_dtype).reshape([6, *shape]))
    held = gatherable.gatherable(rows)
    assert held.dtype == (tf.int64 if dtype in INTEGERS else dtype)
    order = tf.constant([4, 0, 0, 5], tf.int64)
    found = gatherable.restored(tf.gather(held, order), tf.TensorSpec(shape, dtype))
    assert (found.dtype, found.shape) == (dtype, [4, *shape])
    assert found.numpy().tobytes() == tf.gather(rows, order).numpy().tobytes()


def test_small_integers_take_no_more_memory():
    assert gatherable.gatherable(tf.zeros([4, 28, 28, 1], tf.uint8)).shape == [4, 98]


@pytest.fixture(scope="module")
def source(cache_dir):
    return open_source("digits", data_dir=None, cache_dir=cache_dir)


def reader(source, kind, place, replicas):
    """Returns a feed, and a function that returns inputs, targets and mask of a step's batch."""
    strategy = strategy_of(replicas)
    feed = open_feed(
        kind,
        source,
        source.train,
        global_batch_size=BATCH,
        seed=0,
        layout=BatchLayout(replicas),
        strategy=strategy,
        cache_dir=str(place),
    )

    @tf.function(autograph=False)
    def traced(given, step):
        def on_replica(element):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return feed.batch(element, step, replica)[:3]

        return strategy.run(on_replica, args=(feed.next(given),))

    def batch(step):
        parts = traced(feed.open(step, 1).given, tf.constant(step, tf.int64))
        local = [strategy.experimental_local_results(part) for part in parts]
        return [np.concatenate(part).tobytes() for part in local]

    return feed, batch


@pytest.mark.parametrize(
    ("kind", "replicas", "for_gpu"),
    choices(["stream", "resident"], [1, 2], [True, False], strength=2),
)
def test_any_order_of_steps(source, tmp_path, monkeypatch, kind, replicas, for_gpu):
    """The batch of a step depends on the step alone, whichever steps were opened before.

    So a call may compute steps that the run does not take, and the next call opens the feed again.
    """
    monkeypatch.setattr(stream, "_TABLE", 3 * BATCH * 64)  # blocks of three steps
    plain, batch = reader(source, "resident", tmp_path, 1)
    wanted = [batch(step) for step in range(STEPS)]
    plain.close()
    monkeypatch.setattr(gatherable, "needed", lambda: for_gpu)
    feed, batch = reader(source, kind, tmp_path, replicas)

    @settings(max_examples=10)
    @given(st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=6))
    def holds(steps):
        assert [batch(step) for step in steps] == [wanted[step] for step in steps]

    holds()
    feed.close()
