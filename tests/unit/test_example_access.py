"""Reading examples of a split by index, in the requested order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipelines import read_examples, read_targets
from pipelines.sources.tfds import open_source
from pipelines.storage.decode import DECODE_CHUNK, decode_split


@pytest.fixture(scope="module")
def source(cache_dir):
    return open_source("digits", data_dir=None, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def whole(source):
    """Returns all decoded images and labels of the training split."""
    return decode_split(source, source.train)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("count", [1, 7, DECODE_CHUNK, DECODE_CHUNK + 1, 1293])
def test_requested_order(source, whole, tmp_path, kept, count):
    numbers = np.random.default_rng(count).permutation(len(source.train))[:count]
    found = read_examples(source, source.train, numbers, str(tmp_path) if kept else None)
    assert (found.indices == numbers).all()
    assert found.inputs.dtype == whole[0].dtype and (found.inputs == whole[0][numbers]).all()
    assert found.targets.dtype == np.int32 and (found.targets == whole[1][numbers]).all()


def test_repeated_number(source, whole, tmp_path):
    found = read_examples(source, source.train, np.array([5, 0, 5]), str(tmp_path))
    assert (found.inputs == whole[0][[5, 0, 5]]).all()


def test_labels_of_split(source, whole, tmp_path):
    assert (read_targets(source, source.train, str(tmp_path)) == whole[1]).all()


@pytest.mark.parametrize("kept", [True, False])
def test_refuses_truncated_file(source, tmp_path, kept):
    path, first, last = source.train.ranges[0]
    short = tmp_path / "short"
    short.write_bytes(Path(path).read_bytes()[:1000])
    records = dataclasses.replace(source.train, ranges=((str(short), first, last),))
    with pytest.raises(ValueError, match="short"):
        read_examples(source, records, np.arange(300), str(tmp_path) if kept else None)
