"""In-memory and streaming feeds of a data set on disk."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from engine.distributed import strategies
from engine.tasks.classification import Classification
from pipelines import BatchLayout, choose_feed, open_feed
from pipelines.sources.tfds import open_source
from pipelines.storage import decode
from pipelines.storage.records import RecordReader
from tapeline import models
from tests.choices import choices
from tests.harness import norm_network, put_together, strategy_of


@pytest.fixture(scope="module")
def source(cache_dir):
    return open_source("digits", data_dir=None, cache_dir=cache_dir)


def opened(source, kind, place, *, replicas=1, batch=100, seed=0):
    return open_feed(
        kind,
        source,
        source.train,
        global_batch_size=batch,
        seed=seed,
        layout=BatchLayout(replicas),
        strategy=strategy_of(replicas),
        cache_dir=str(place),
    )


def global_batch(feed, strategy, step):
    """Returns the global batch of one step, concatenated over the replicas."""

    @tf.function(autograph=False)
    def once(inputs):
        element = feed.next(inputs)

        def on_replica(element):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return feed.batch(element, tf.constant(step, tf.int64), replica)

        return strategy.run(on_replica, args=(element,))

    result = once(feed.open(step, 1).given)
    local = [strategy.experimental_local_results(part) for part in result]
    return [np.concatenate([np.atleast_1d(piece) for piece in part]) for part in local]


@pytest.mark.parametrize("replicas", [1, 2])
def test_stream_pipeline_is_not_tuned(source, tmp_path, replicas):
    """The stream uses a plain iterator without autotuning, for which closing would wait."""
    feed = opened(source, "stream", tmp_path, replicas=replicas)
    feed.open(0, 1)
    assert isinstance(feed._iterator, tf.data.Iterator)
    assert feed._iterator._dataset.options().autotune.enabled is False


@pytest.mark.parametrize(
    ("step", "replicas", "kind"), choices([0, 12, 14], [2, 4], ["resident", "stream"], strength=2)
)
def test_replicas_share_batch(source, tmp_path, kind, replicas, step):
    one = opened(source, kind, tmp_path)
    many = opened(source, kind, tmp_path, replicas=replicas)
    alone = global_batch(one, strategy_of(1), step)
    shared = global_batch(many, many_strategy(many, replicas), step)
    for images in (alone, shared):
        assert images[0].dtype == np.uint8
    valid, shared_valid = alone[2] > 0, shared[2] > 0
    assert np.array_equal(alone[0][valid], shared[0][shared_valid])
    assert np.array_equal(alone[1][valid], shared[1][shared_valid])
    assert shared[4].tolist() == [valid.sum()] * replicas


def many_strategy(feed, replicas):
    return getattr(feed, "_strategy", None) or strategies.mirrored("CPU", replicas)


def test_second_start_uses_cache(source, tmp_path, monkeypatch):
    first = opened(source, "resident", tmp_path)

    def never(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr("pipelines.feeds.feed.decode_split", never)
    again = opened(source, "resident", tmp_path)
    for part, other in zip(
        global_batch(first, strategy_of(1), 0), global_batch(again, strategy_of(1), 0), strict=True
    ):
        assert np.array_equal(part, other)


def test_damaged_cache_decoded_again(source, tmp_path):
    first = opened(source, "resident", tmp_path)
    (entry,) = tmp_path.glob("*.decoded")
    content = bytearray(entry.read_bytes())
    content[-50] ^= 255
    entry.write_bytes(content)
    again = opened(source, "resident", tmp_path)
    for part, other in zip(
        global_batch(first, strategy_of(1), 3), global_batch(again, strategy_of(1), 3), strict=True
    ):
        assert np.array_equal(part, other)


def test_decoding_reports_progress(source):
    done = []
    images, labels = decode.decode_split(source, source.train, done.append)
    assert sum(done) == len(source.train) == len(images) == len(labels)


@pytest.mark.parametrize("count", [1, 16, 37])
@pytest.mark.parametrize("known", [True, False])
def test_batch_decoding_matches_single(source, count, known):
    serialized = RecordReader(source.train.ranges).read(np.arange(count))
    signature = [tf.TensorSpec([count if known else None], tf.string)]
    together = tf.function(lambda some: decode.decode_batch(source, some), signature)
    images, labels = together(tf.constant(serialized))
    assert images.shape[0] == labels.shape[0] == count
    for image, label, alone in zip(images, labels, serialized, strict=True):
        expected_image, expected_label = source.decode(tf.constant(alone))
        assert np.array_equal(image, expected_image) and label == expected_label


def undecodable(source, number):
    """Returns the source with a decoder that fails for one training example."""
    culprit = RecordReader(source.train.ranges).read(np.array([number]))[0]

    def broken(serialized):
        fine = tf.debugging.Assert(serialized != culprit, ["no picture"])
        with tf.control_dependencies([fine]):
            return source.decode(serialized)

    return dataclasses.replace(source, decode=broken)


def test_names_undecodable_example(source):
    with pytest.raises(
        ValueError, match=r"damaged data in digits, train.*, example 700: "
    ) as error:
        decode.decode_split(undecodable(source, 700), source.train)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("replicas", [1, 2])
def test_stream_error_is_one_line(source, tmp_path, replicas):
    """An undecodable example in a stream ends training with a one-line error."""

    def feed(strategy):
        return open_feed(
            "stream",
            undecodable(source, 700),
            source.train,
            global_batch_size=100,
            seed=0,
            layout=BatchLayout(replicas),
            strategy=strategy,
            cache_dir=str(tmp_path),
        )

    def network():
        return models.Sequential("network", norm_network(10), source.image_shape, 0)

    made = put_together(network, feed, Classification(), layout=BatchLayout(replicas), seed=0)
    with pytest.raises(RuntimeError, match=r"^training failed after step \d+: ") as error:
        made.take(made.feed.steps_per_epoch)
    assert "\n" not in str(error.value)


def test_auto_feed(source, monkeypatch):
    """`auto` is resident if the data fits in memory, and stream otherwise."""
    assert choose_feed("auto", source) == ("resident", 1797 * 68)
    assert choose_feed("stream", source)[0] == "stream"
    image = tf.TensorSpec((2000, 2000, 3), tf.uint8)
    huge = dataclasses.replace(source, decoded=(image, source.decoded[1]))
    assert choose_feed("auto", huge)[0] == "stream"
    assert choose_feed("resident", huge)[0] == "resident"
