"""A run is told when its data has changed, and not when the same examples were prepared again."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines import identity, open_source
from pipelines.identity import Identity, identity_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Identity("a", "x"), Identity("a", "x"), True),
        (Identity("a", "x"), Identity("b", "x"), True),
        (Identity("a", "x"), Identity("a", ""), True),
        (Identity("a", ""), Identity("b", ""), False),
        (Identity("a", "x"), Identity("b", ""), False),
        (Identity("a", "x"), Identity("b", "y"), False),
    ],
)
def test_the_same_files_or_the_same_examples_are_the_same_data(one, other, same):
    assert one.is_that_of(other) == other.is_that_of(one) == same


def opened(cache_dir):
    return open_source("digits", data_dir=None, cache_dir=str(cache_dir))


def test_two_preparations_are_the_same_data_and_another_split_is_not(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    one = identity_of(opened(first), str(first))
    assert one.is_that_of(identity_of(opened(second), str(second)))
    assert one == identity_of(opened(first), str(first))  # from what was decoded before
    cut = open_source("digits", data_dir=None, cache_dir=str(first), validation_split="0.2")
    assert not one.is_that_of(identity_of(cut, str(first)))


def test_of_a_large_data_set_files_alone_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_SMALL", 1000)
    source = opened(tmp_path)
    found = identity_of(source, str(tmp_path))
    assert found.examples == "" and found.files
    other = dataclasses.replace(source, train=source.train.part(0, 100, "train[:100]"))
    assert not found.is_that_of(identity_of(other, str(tmp_path)))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    source = opened(tmp_path)
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    found = identity_of(source, str(nowhere))
    assert found.is_that_of(identity_of(source, str(tmp_path))) and found.examples
