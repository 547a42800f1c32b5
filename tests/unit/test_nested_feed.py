"""Feeds, cache, digests and reading by index support nests of any structure and dtype."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import (
    BatchLayout,
    choose_feed,
    data_identity,
    nests,
    open_feed,
    permutation,
    read_examples,
    read_targets,
)
from pipelines.storage import cache
from pipelines.storage.decode import decode_split
from tests.nested import Pair, examples, filled, source_of

TARGETS = np.zeros((), np.int32)


def opened(source, kind, place, *, batch=4, seed=3, layout=None, ahead=False):
    return open_feed(
        kind,
        source,
        source.train,
        global_batch_size=batch,
        seed=seed,
        layout=layout or BatchLayout(),
        strategy=tf.distribute.get_strategy(),
        cache_dir=str(place),
        include_next_example=ahead,
    )


def rows(feed, step):
    """Returns (inputs, targets, masks) of a step; leaves are [micro-batches, rows, ...]."""
    given = feed.open(step, 1).given
    parts = [
        feed.batch(feed.next(given), tf.constant(step, tf.int64), 0, tf.constant(i, tf.int64))
        for i in range(feed.layout.local_micro_batches)
    ]
    return tf.nest.map_structure(lambda *leaves: np.stack(leaves), *parts)


def assert_same(one, other):
    tf.nest.assert_same_structure(one, other)
    for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        assert left.dtype == right.dtype and left.shape == right.shape
        assert np.array_equal(left, right)


def decodes(source):
    """Returns the source with a decoder that adds one to every number."""

    def decode(stored):
        return tf.nest.map_structure(
            lambda leaf: leaf if leaf.dtype == tf.bool else leaf + tf.ones([], leaf.dtype), stored
        )

    return dataclasses.replace(source, decode=decode, recipe="plus 1")


@given(
    inputs=examples,
    targets=examples,
    count=st.integers(1, 40),
    batch=st.integers(1, 12),
    micro_batches=st.integers(1, 3),
    shards=st.sampled_from([0, 2]),
    ahead=st.booleans(),
    seed=st.sampled_from([None, 5]),
    with_decoder=st.booleans(),
    data=st.data(),
)
@settings(max_examples=15)
def test_stream_matches_resident(
    tmp_path_factory,
    inputs,
    targets,
    count,
    batch,
    micro_batches,
    shards,
    ahead,
    seed,
    with_decoder,
    data,
):
    """Both feeds, opened at any step, return the examples at its positions of the order."""
    source = source_of(filled(inputs, count, 0), filled(targets, count, 1))
    source = decodes(source) if with_decoder else source
    layout, place = BatchLayout(1, micro_batches, shards), tmp_path_factory.mktemp("cache")
    made = [
        opened(source, kind, place, batch=batch, seed=seed, layout=layout, ahead=ahead)
        for kind in ("resident", "stream")
    ]
    step = data.draw(st.integers(0, 2 * made[0].steps_per_epoch))
    resident, streamed = (rows(feed, step) for feed in made)
    made[1].close()
    assert_same(resident, streamed)
    tf.nest.assert_same_structure((resident.inputs, resident.targets), source.decoded)

    epoch, within = divmod(step, made[0].steps_per_epoch)
    order = np.arange(count) if seed is None else permutation(seed, epoch, count)
    expected = order[within * batch : (within + 1) * batch]
    whole = decode_split(source, source.train)
    found = resident.mask.reshape(-1) > 0
    for leaf, every in zip(
        tf.nest.flatten((resident.inputs, resident.targets)), tf.nest.flatten(whole), strict=True
    ):
        leaf = leaf[:, : leaf.shape[1] - ahead] if ahead else leaf
        leaf = leaf.reshape(-1, *every.shape[1:])[found]
        # Micro-batches of a shard are consecutive: compare the rows as a set of examples.
        keys = sorted(map(bytes, leaf.reshape(len(leaf), -1)))
        assert keys == sorted(map(bytes, every[expected].reshape(len(leaf), -1)))


@given(inputs=examples, targets=examples, count=st.integers(1, 9))
@settings(max_examples=25)
def test_cache_round_trip(tmp_path_factory, inputs, targets, count):
    decoded = filled(inputs, count, 0), filled(targets, count, 1)
    place, spec = str(tmp_path_factory.mktemp("cache")), nests.spec_of(decoded)
    cache.store(place, "name", decoded)
    assert_same(cache.load(place, "name", spec), decoded)
    assert cache.stored_digest(place, "name") == cache.content_digest(decoded)
    other = spec[0], {"more": spec[1]}
    assert cache.load(place, "name", other) is None


@given(inputs=examples, targets=examples, count=st.integers(2, 20), data=st.data())
@settings(max_examples=25)
def test_identity_of_contents(tmp_path_factory, inputs, targets, count, data):
    """Equal values have equal digests, for any order of dict keys; a changed value changes them."""
    place = str(tmp_path_factory.mktemp("cache"))
    arrays = filled(inputs, count, 0), filled(targets, count, 1)

    def reordered(nest):
        if isinstance(nest, dict):
            return {key: reordered(nest[key]) for key in sorted(nest, reverse=True)}
        if isinstance(nest, Pair):
            return Pair(*map(reordered, nest))
        return tuple(map(reordered, nest)) if isinstance(nest, tuple) else nest.copy()

    one = data_identity(source_of(*arrays, held_out=1), place)
    assert one.files
    assert data_identity(source_of(*map(reordered, arrays), held_out=1, name="x"), place) == one
    changed = tf.nest.map_structure(np.copy, arrays)
    leaf = data.draw(st.sampled_from(tf.nest.flatten(changed)))
    at = data.draw(st.integers(0, leaf.size - 1))
    leaf.reshape(-1)[at] = 0 if leaf.reshape(-1)[at] else 1
    assert not data_identity(source_of(*changed, held_out=1), place).matches(one)
    assert not data_identity(source_of(*arrays, held_out=0), place).matches(one)


def test_identity_knows_shapes(tmp_path):
    """The same bytes in another shape or dtype have other digests."""
    values = np.arange(24, dtype=np.int32)
    shapes = [values.reshape(4, 6), values.reshape(4, 2, 3), values.reshape(4, 6).view(np.float32)]
    found = {
        data_identity(source_of(each, np.zeros(4, np.int32)), str(tmp_path)) for each in shapes
    }
    assert len({each.files for each in found}) == 3


@given(inputs=examples, targets=examples, with_decoder=st.booleans(), data=st.data())
@settings(max_examples=20)
def test_access_by_index(tmp_path_factory, inputs, targets, with_decoder, data):
    source = source_of(filled(inputs, 30, 0), filled(targets, 30, 1), held_out=7)
    source = decodes(source) if with_decoder else source
    indices = np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=20)))
    found = read_examples(source, source.validation, indices)
    whole = decode_split(source, source.validation)
    assert found.indices is indices
    assert_same(
        (found.inputs, found.targets), tf.nest.map_structure(lambda leaf: leaf[indices], whole)
    )
    if not with_decoder:
        place = str(tmp_path_factory.mktemp("cache"))
        assert_same(read_targets(source, source.validation, place), whole[1])


def test_size_of_nests():
    source = source_of({"x": np.zeros((10, 3)), "ids": np.zeros((10, 2), np.int64)}, TARGETS[None])
    assert choose_feed("stream", source)[1] == 10 * (24 + 16 + 4)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (tf.TensorSpec([None, 3]), "the inputs of x vary in shape"),
        ({"a": tf.TensorSpec([], tf.string)}, "(a) are string; inputs and targets have to be num"),
    ],
)
def test_refuses_unusable_spec(spec, expected):
    with pytest.raises(ValueError) as error:
        nests.checked_spec("the inputs of x", spec)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_paths_follow_tf_nest():
    nest = {"b": (1, {"x": 2}), "a": Pair(3, 4)}
    assert nests.paths(nest) == ["a/first", "a/second", "b/0", "b/1/x"]
    assert tf.nest.flatten(nest) == [3, 4, 1, 2]
    assert nests.paths(5) == [""]
