"""Digests of the data: changed data differs; the same examples prepared twice do not."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.sources.tfds import open_source
from pipelines.storage import identity
from pipelines.storage.identity import DataIdentity, data_identity


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (DataIdentity("a", "x"), DataIdentity("a", "x"), True),
        (DataIdentity("a", "x"), DataIdentity("b", "x"), True),
        (DataIdentity("a", "x"), DataIdentity("a", ""), True),
        (DataIdentity("a", ""), DataIdentity("b", ""), False),
        (DataIdentity("a", "x"), DataIdentity("b", ""), False),
        (DataIdentity("a", "x"), DataIdentity("b", "y"), False),
    ],
)
def test_same_files_or_examples(one, other, same):
    assert one.matches(other) == other.matches(one) == same


def opened(cache_dir):
    return open_source("digits", data_dir=None, cache_dir=str(cache_dir))


def test_same_data_prepared_twice(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    one = data_identity(opened(first), str(first))
    assert one.matches(data_identity(opened(second), str(second)))
    assert one == data_identity(opened(first), str(first))  # from the decoded cache
    cut = open_source("digits", data_dir=None, cache_dir=str(first), validation_split="0.2")
    assert not one.matches(data_identity(cut, str(first)))


def test_large_data_set_compares_files(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_SMALL", 1000)
    source = opened(tmp_path)
    found = data_identity(source, str(tmp_path))
    assert found.examples == "" and found.files
    other = dataclasses.replace(source, train=source.train.part(0, 100, "train[:100]"))
    assert not found.matches(data_identity(other, str(tmp_path)))


def test_unwritable_cache(tmp_path):
    source = opened(tmp_path)
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    found = data_identity(source, str(nowhere))
    assert found.matches(data_identity(source, str(tmp_path))) and found.examples
