"""Validation sets by name: of fractions and splits, and of every kind of source."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipelines import (
    SourceOptions,
    arrays,
    csv,
    data_identity,
    from_dataset,
    open_dataset,
    random_access,
    read_targets,
)
from pipelines.sources.folder import folder
from pipelines.sources.held_out import Fraction, cut
from pipelines.splits import ArrayTable, whole
from tests.unit.test_folder import fill

INPUTS = np.arange(60, dtype=np.float32).reshape(20, 3)
TARGETS = np.arange(20)
OURS = {"inputs": INPUTS, "targets": TARGETS, "shuffle": False}


def opened(described, place="unused", **options):
    given = SourceOptions(cache_dir=str(place), **options)
    return open_dataset("mine", given, lambda: described)


def said(call):
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def targets_of(source):
    """Returns the targets of each split by name."""
    return {
        name: read_targets(source, split, "unused").tolist()
        for name, split in source.splits.items()
    }


# Fractions


@given(
    st.integers(1, 400),
    st.lists(st.floats(0.01, 0.5), min_size=1, max_size=4),
)
def test_cut(examples, values):
    """Each fraction has as many examples as it would have alone; they follow from the end."""
    split = whole("train", ArrayTable((np.arange(examples), np.arange(examples))), examples)
    fractions = {f"s{i}": Fraction(f"s{i}={value}", value) for i, value in enumerate(values)}
    sizes = [examples - math.floor(examples * (1.0 - value)) for value in values]
    if sum(sizes) >= examples or not all(sizes):
        assert "leaves none for" in said(lambda: cut("mine", split, fractions))
        return
    train, sets = cut("mine", split, fractions)
    assert list(sets) == list(fractions) and [len(each) for each in sets.values()] == sizes
    rows = np.concatenate([train.rows, *(each.rows for each in reversed(sets.values()))])
    assert np.array_equal(rows, np.arange(examples))
    assert train.name == f"train[:{len(train)}]"
    assert sets["s0"].name == f"train[{examples - sizes[0]}:]"


def test_fractions_by_name():
    source = opened(arrays(**OURS), validation_split={"near": "0.1", "far": "0.2"})
    found = targets_of(source)
    assert list(found) == ["train", "near", "far"]
    assert found["near"] == [18, 19] and found["far"] == [14, 15, 16, 17]
    assert found["train"] == list(range(14)) and source.validation is source.validation_sets["near"]


def test_one_unnamed_set():
    """A value without names gives one set, "validation", with the identity that it always had."""
    one = opened(arrays(**OURS), validation_split="0.1")
    named = opened(arrays(**OURS), validation_split={"other": "0.1"})
    assert list(one.validation_sets) == ["validation"] and list(named.validation_sets) == ["other"]
    assert data_identity(one, "unused") == data_identity(named, "unused")
    assert opened(arrays(**OURS), validation_split="0").validation_sets == {}
    assert opened(arrays(**OURS), validation_split="0").validation is None


def test_identity_has_every_set():
    source = opened(arrays(**OURS), validation_split={"a": "0.1", "b": "0.2"})
    sets = dict(source.validation_sets)
    for name in sets:
        fewer = {key: each for key, each in sets.items() if key != name}
        other = dataclasses.replace(source, validation_sets=fewer)
        assert data_identity(other, "unused") != data_identity(source, "unused")


# Sources


def test_splits_of_tfds(cache_dir):
    sets = {"a": "0.1", "b": "test[:50]", "c": "test[50:]"}
    options = SourceOptions(cache_dir=cache_dir, validation_split=sets, test_split="")
    source = open_dataset("digits", options, None)
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 1293,
        "a": 144,
        "b": 50,
        "c": 310,
    }
    alone = open_dataset("digits", SourceOptions(cache_dir=cache_dir, test_split=""), None)
    assert source.validation_sets["a"].ranges == alone.validation.ranges


def test_arrays_by_name():
    sets = {"b": (INPUTS[:3], TARGETS[:3]), "a": 0.25, "c": 0.125}
    found = targets_of(opened(arrays(**OURS, validation=sets, test=0.2)))
    assert list(found) == ["train", "b", "a", "c", "test"]
    assert found == {
        "train": list(range(10)),
        "b": [0, 1, 2],
        "a": [12, 13, 14, 15],
        "c": [10, 11],
        "test": [16, 17, 18, 19],
    }
    # --validation_split selects others, also parts of these.
    chosen = {"some": "a[:2]", "rest": "b"}
    found = targets_of(opened(arrays(**OURS, validation=sets), validation_split=chosen))
    assert {key: found[key] for key in chosen} == {"some": [15, 16], "rest": [0, 1, 2]}


def test_csv_by_name(tmp_path):
    table, other = tmp_path / "table.csv", tmp_path / "other.csv"
    table.write_text("size,kind\n" + "".join(f"{i},{i}\n" for i in range(10)))
    other.write_text("size,kind\n7,70\n")
    described = csv(
        str(table),
        inputs="size",
        target="kind",
        validation={"mine": 0.2, "theirs": str(other)},
        shuffle=False,
    )
    found = targets_of(opened(described))
    assert (found["mine"], found["theirs"], len(found["train"])) == ([8, 9], [70], 8)


def test_functions_by_name():
    def read(index):
        return np.float32(index), index

    described = random_access(
        examples=10, read=read, validation={"own": (3, read), "cut": 0.3}, shuffle=False
    )
    found = targets_of(opened(described))
    assert list(found) == ["train", "own", "cut"]
    assert found["own"] == [0, 1, 2] and found["cut"] == [7, 8, 9]


def test_pipelines_by_name():
    def make(seed=0, epoch=0):
        return tf.data.Dataset.range(6).map(lambda i: (tf.cast(i, tf.float32), i))

    sets = {"a": lambda: make().take(2), "b": lambda: make().skip(4)}
    described = from_dataset(make, examples=6, version="1", validation=sets)
    found = targets_of(opened(described))
    assert (found["a"], found["b"]) == ([0, 1], [4, 5])
    found = targets_of(opened(described, validation_split={"part": "a[:1]"}))
    assert list(found) == ["train", "part"] and found["part"] == [0]
    message = said(lambda: opened(described, validation_split={"a": "a", "x": "0.1"}))
    assert message.startswith("--validation_split=x=0.1: mine is a pipeline, which nothing can be")


def test_folders_by_name(tmp_path):
    """Fractions of a folder are disjoint, and a file stays in its split when others are added."""

    def contents(split):
        return {split.table._files[row][2].digest for row in split.rows}

    root = fill(tmp_path / "pets", count=60, size=(8, 8))
    sets = {"a": "0.2", "b": "0.2"}
    one = opened(folder(str(root)), tmp_path / "cache", validation_split=sets)
    assert list(one.splits) == ["train", "a", "b"]
    assert sum(map(len, one.splits.values())) == 120
    assert all(10 <= len(split) <= 40 for split in one.validation_sets.values())
    alone = opened(folder(str(root)), tmp_path / "cache", validation_split="0.2")
    assert contents(one.validation_sets["a"]) == contents(alone.validation)
    same = opened(folder(str(root), validation={"a": 0.2, "b": 0.2}), tmp_path / "cache")
    assert {k: contents(v) for k, v in same.splits.items()} == {
        k: contents(v) for k, v in one.splits.items()
    }
    for path in list((root / "dog").iterdir())[:30]:
        path.unlink()
    fewer = opened(folder(str(root)), tmp_path / "cache", validation_split=sets)
    for name, split in fewer.splits.items():
        assert contents(split) < contents(one.splits[name])


def test_folder_of_validation_by_name(tmp_path):
    """Named sets may be parts of the folders, beside fractions."""
    for name, count in (("train", 20), ("validation", 12), ("test", 5)):
        fill(tmp_path / "pets" / name, count=count, size=(8, 8))
    sets = {"near": "0.3", "far": "validation[:10]", "rest": "validation[10:]"}
    described = folder(str(tmp_path / "pets"))
    source = opened(described, tmp_path / "cache", validation_split=sets)
    sizes = {name: len(split) for name, split in source.splits.items()}
    assert list(sizes) == ["train", "near", "far", "rest", "test"]
    assert (sizes["far"], sizes["rest"], sizes["test"]) == (10, 14, 10)
    assert sizes["train"] + sizes["near"] == 40


# Refusals


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ({"a": "0.5", "b": "0.5"}, "=b=0.5: of the 10 examples in train of mine leaves none for"),
        ({"a": "0"}, "--validation_split=a=0: give a fraction between 0 and 1"),
        ({"a": "1.5"}, "--validation_split=a=1.5: give a fraction between 0 and 1"),
        ({"a": "nope"}, "--validation_split=a=nope: mine has train, or a part"),
        (
            {"a": "0.1", "b": "train[15:]"},
            "--validation_split=b=train[15:]: shares examples with --train_split=train: 3 of its 5",
        ),
        ({"b": "train[15:]"}, "leave b out, or allow it with --allow_overlap=true"),
    ],
)
def test_refuses_sets(sets, expected):
    assert expected in said(lambda: opened(arrays(**OURS), validation_split=sets))


def test_refuses_sets_that_overlap():
    sets = {"a": "train[10:15]", "b": "train[14:]"}
    options = {"train_split": "train[:10]", "validation_split": sets}
    message = said(lambda: opened(arrays(**OURS), **options))
    assert message.startswith(
        "--validation_split=b=train[14:]: shares examples with --validation_split=a=train[10:15]: 1"
    )
    assert len(opened(arrays(**OURS), allow_overlap=True, **options).validation_sets) == 2


@pytest.mark.parametrize("name", ["train", "test", "a b", "", "1a", 3, "a-b"])
def test_refuses_name(name):
    message = said(lambda: opened(arrays(**OURS, validation={name: 0.1})))
    assert f"validation of mine has the key {name!r}: name a validation set by letters" in message
