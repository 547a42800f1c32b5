"""The selection of a part of a validation set: spread over it, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipelines import (
    SourceOptions,
    arrays,
    data_identity,
    open_dataset,
    read_examples,
    read_targets,
    size_text,
    with_selected,
)
from pipelines.selection import SelectedSplit, spread
from pipelines.sources.tfds import open_source
from pipelines.storage.decode import decode_split
from tests.nested import source_of

INPUTS = np.arange(40, dtype=np.float32).reshape(20, 2)


@given(st.integers(1, 5000), st.data())
def test_spread(examples, data):
    """One example of each of so many ranges of nearly equal size is selected, in order."""
    count = data.draw(st.integers(1, examples))
    rows = spread(examples, count)
    assert rows.dtype == np.int64 and len(rows) == count
    edges = np.arange(count + 1) * examples // count
    assert np.all((edges[:-1] <= rows) & (rows < edges[1:]))
    assert np.array_equal(rows, spread(examples, count))


def test_selection_is_fixed():
    """The indices are part of what a run computes, so they never change between versions."""
    assert spread(60_000, 5).tolist() == [2067, 18592, 24379, 41344, 56228]
    assert spread(7, 7).tolist() == list(range(7))


@pytest.mark.parametrize("classes", [10, 7])
@pytest.mark.parametrize("in_turn", [True, False])
def test_represents_classes(classes, in_turn):
    """Examples sorted by class, or in turn, are selected in proportion."""
    labels = np.arange(10_000) % classes if in_turn else np.arange(10_000) * classes // 10_000
    counts = np.bincount(labels[spread(10_000, 1000)], minlength=classes)
    assert np.all(np.abs(counts - 1000 / classes) < 4 * np.sqrt(1000 / classes))


@pytest.mark.parametrize("count", [0, 11])
def test_refuses_count(count):
    with pytest.raises(ValueError, match=rf"{count} of 10 examples: must be 1 to 10"):
        spread(10, count)


def test_selected_examples(tmp_path):
    source = source_of(INPUTS, np.arange(20), held_out=12)
    cut = with_selected(source, 5)
    rows = spread(12, 5)
    assert len(cut.validation) == 5 and len(cut.train) == 8
    assert isinstance(cut.validation, SelectedSplit) and "(5 of 12)" in cut.validation.name
    expected = 8 + rows
    assert read_targets(cut, cut.validation, str(tmp_path)).tolist() == expected.tolist()
    assert decode_split(cut, cut.validation)[1].tolist() == expected.tolist()
    found = read_examples(cut, cut.validation, np.array([4, 0]))
    assert found.targets.tolist() == expected[[4, 0]].tolist()
    part = cut.validation.part(1, 3, "part")
    assert decode_split(cut, part)[1].tolist() == expected[1:3].tolist()
    assert size_text(cut.validation) == "5 of 12" and size_text(cut.train) == "8"


@pytest.mark.parametrize("count", [0, 12, 100])
def test_smaller_sets_are_whole(count):
    source = source_of(INPUTS, np.arange(20), held_out=12)
    assert with_selected(source, count).validation is source.validation


def test_identity_of_selection(tmp_path):
    """The identity of the data tells other examples and another selection."""
    source = source_of(INPUTS, np.arange(20), held_out=12)
    cut = with_selected(source, 5)
    identities = [data_identity(each, str(tmp_path)) for each in (source, cut)]
    identities.append(data_identity(with_selected(source, 6), str(tmp_path)))
    changed = source_of(INPUTS + 1, np.arange(20), held_out=12)
    identities.append(data_identity(with_selected(changed, 5), str(tmp_path)))
    assert len(set(identities)) == 4
    again = with_selected(source_of(INPUTS, np.arange(20), held_out=12), 5)
    assert data_identity(again, str(tmp_path)) == identities[1]


def test_selection_in_files(cache_dir, tmp_path):
    """Examples of TFRecord files are those that reading the whole set gives."""
    source = open_source("digits", data_dir=None, cache_dir=cache_dir, validation_split="0.2")
    cut, rows = with_selected(source, 6), spread(len(source.validation), 6)
    whole_images, whole_labels = decode_split(source, source.validation)
    images, labels = decode_split(cut, cut.validation)
    assert np.array_equal(images, whole_images[rows]) and np.array_equal(labels, whole_labels[rows])
    assert np.array_equal(read_targets(cut, cut.validation, str(tmp_path)), whole_labels[rows])


def test_each_set_is_selected():
    described = arrays(
        inputs=INPUTS, targets=np.arange(20), validation={"a": 0.5, "b": 0.1}, test=0.1
    )
    source = open_dataset("mine", SourceOptions(cache_dir="unused"), lambda: described)
    cut = with_selected(source, 3)
    assert {name: len(split) for name, split in cut.splits.items()} == {
        "train": 7,
        "a": 3,
        "b": 2,
        "test": 2,
    }
    assert cut.decoded[0] == tf.TensorSpec((2,), tf.float32)
