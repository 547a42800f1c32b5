"""Reading examples by index from TFRecord files."""

from __future__ import annotations

import os
import resource

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.storage import records
from pipelines.storage.records import RecordReader


def write(path, examples) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)
    return str(path)


EXAMPLES = [bytes([i]) * (i * 7 % 50) for i in range(40)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("records")
    return write(place / "a", EXAMPLES[:25]), write(place / "b", EXAMPLES[25:])


def test_reads_in_any_order(files):
    reader = RecordReader([(files[0], 0, 25), (files[1], 0, 15)])
    order = np.random.default_rng(0).permutation(40)
    assert reader.read(order).tolist() == [EXAMPLES[i] for i in order]


def test_limits_open_files(files, monkeypatch):
    monkeypatch.setattr(records, "open_files_per_reader", lambda most: 1)
    reader = RecordReader([(files[0], 0, 25), (files[1], 0, 15)])
    order = np.random.default_rng(0).permutation(40)
    assert reader.read(order).tolist() == [EXAMPLES[i] for i in order]
    assert reader._file.cache_info().currsize == 1


def test_few_open_files_allowed(tmp_path):
    """Readers of many files stay below the limit of the operating system, which may be low."""
    ranges = [(write(tmp_path / str(i), EXAMPLES[:3]), 0, 3) for i in range(50)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open(os.devnull, os.O_RDONLY)  # the lowest free descriptor: all below are in use
    os.close(taken)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 45, hard))
        readers = [RecordReader(ranges, cache_dir=str(tmp_path / "cache")) for _ in range(3)]
        for reader in readers:
            assert reader.read(np.arange(150)).tolist() == EXAMPLES[:3] * 50
            assert reader._file.cache_info().currsize <= max(4, (taken + 45) // 8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@given(start=st.integers(0, 25), stop=st.integers(0, 25), more=st.integers(0, 15))
@settings(max_examples=30, derandomize=True)
def test_ranges_of_files(files, start, stop, more):
    start, stop = min(start, stop), max(start, stop)
    reader = RecordReader([(files[0], start, stop), (files[1], 0, more)])
    expected = EXAMPLES[start:stop] + EXAMPLES[25 : 25 + more]
    assert len(reader) == len(expected)
    assert reader.read(np.arange(len(expected))).tolist() == expected


def test_refuses_short_file(files):
    with pytest.raises(ValueError, match="contains 25 examples; expected 26"):
        RecordReader([(files[0], 0, 26)])


@pytest.mark.parametrize("damage", ["cut", "flip", "text"])
def test_refuses_damaged_file(tmp_path, damage):
    path = tmp_path / "damaged"
    write(path, EXAMPLES)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray(b"this is no TFRecord file, and never was one" * 9)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged") as error:
        RecordReader([(str(path), 0, 40)])
    assert "\n" not in str(error.value)


def test_rereads_replaced_file(tmp_path):
    path = tmp_path / "replaced"
    write(path, EXAMPLES[:10])
    assert len(RecordReader([(str(path), 0, 10)])) == 10
    write(path, EXAMPLES[:20])
    reader = RecordReader([(str(path), 0, 20)])
    assert reader.read(np.array([19])).tolist() == [EXAMPLES[19]]
