"""The record index of TFRecord files, and its cache."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from pipelines.storage import file_index, index
from pipelines.storage.file_index import Fields
from pipelines.storage.index import load_or_build_index
from pipelines.storage.records import RecordReader

FIELDS = Fields("picture", "kind")


def example(image: bytes | None, label: int, other: bytes = b"") -> bytes:
    features = {
        "kind": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "other": tf.train.Feature(bytes_list=tf.train.BytesList(value=[other])),
    }
    if image is not None:
        features["picture"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(path, examples) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in examples:
            writer.write(each)
    return str(path)


IMAGES = [bytes([65 + i]) * (1 + i * i % 300) for i in range(60)]


@pytest.fixture
def ranges(tmp_path):
    stored = [example(image, i * 7, b"?" * i) for i, image in enumerate(IMAGES)]
    one, other = write(tmp_path / "one", stored[:40]), write(tmp_path / "other", stored[40:])
    return (one, 5, 40), (other, 0, 17)


def check(reader: RecordReader) -> None:
    order = np.random.default_rng(0).permutation(52)
    found, labels = reader.read(order)
    assert found.tolist() == [IMAGES[5 + i] for i in order]
    assert labels.tolist() == [7 * (5 + i) for i in order] and labels.dtype == np.int32


def test_reads_images_and_labels(ranges):
    seen = []
    check(RecordReader(ranges, FIELDS, progress=seen.append))
    assert sum(seen) == 52


def test_any_chunk_size(ranges, monkeypatch):
    for size in (1, 3, 5, 39):
        monkeypatch.setattr(file_index, "_CHUNK", size)
        check(RecordReader(ranges, FIELDS))


def test_index_is_cached(ranges, tmp_path, monkeypatch):
    check(RecordReader(ranges, FIELDS, str(tmp_path)))

    def never(*_):
        raise AssertionError("looked for again")

    monkeypatch.setattr(file_index, "_examples", never)
    check(RecordReader(ranges, FIELDS, str(tmp_path)))
    with pytest.raises(AssertionError):
        RecordReader(ranges, None, str(tmp_path))


def test_large_index_on_disk(ranges, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "_IN_MEMORY", 51)
    for _ in range(2):
        reader = RecordReader(ranges, FIELDS, str(tmp_path))
        assert not isinstance(reader._index._rows, np.ndarray)
        check(reader)


def test_changed_file_has_new_index(ranges, tmp_path):
    check(RecordReader(ranges, FIELDS, str(tmp_path)))
    path = ranges[1][0]
    write(path, [example(b"new", 1) for _ in range(20)])
    found, labels = RecordReader(ranges, FIELDS, str(tmp_path)).read(np.array([40]))
    assert (found.tolist(), labels.tolist()) == ([b"new"], [1])


def test_rebuilds_damaged_index(ranges, tmp_path):
    check(RecordReader(ranges, FIELDS, str(tmp_path)))
    entry, _ = sorted(tmp_path.glob("*.index"), key=lambda path: -path.stat().st_size)
    content = entry.read_bytes()
    for at in range(0, len(content), 41):
        damaged = bytearray(content)
        damaged[at] ^= 4
        entry.write_bytes(damaged)
        check(RecordReader(ranges, FIELDS, str(tmp_path)))
        assert entry.read_bytes() == content
    entry.write_bytes(content[:-1])
    check(RecordReader(ranges, FIELDS, str(tmp_path)))


@pytest.fixture
def passes(monkeypatch):
    """Returns the list of the files that the index was built of, in turn."""
    real, found = file_index._examples, []

    def counted(path, stop):
        found.append(os.path.basename(path))
        return real(path, stop)

    monkeypatch.setattr(file_index, "_examples", counted)
    return found


def test_links_are_indexed_once(ranges, tmp_path, monkeypatch, passes):
    """A set of many links to a few files: each file is read once, and never again."""
    links = []
    for number in range(12):
        link = tmp_path / f"link-{number}"
        link.symlink_to(ranges[number % 2][0])
        links.append((str(link), *ranges[number % 2][1:]))
    opened = []
    for rows in (10**6, 1, 1):
        monkeypatch.setattr(index, "_IN_MEMORY", rows)
        reader = RecordReader(links, FIELDS, str(tmp_path / "cache"), opened.append)
        order = np.random.default_rng(1).permutation(6 * 52)
        found, labels = reader.read(order)
        assert found.tolist() == [IMAGES[5 + i % 52] for i in order]
        assert labels.tolist() == [7 * (5 + i % 52) for i in order]
        assert reader.targets().tolist() == [7 * (5 + i % 52) for i in range(6 * 52)]
        assert reader._file.cache_info().currsize == 2
    assert passes == ["link-0", "link-1"] and sum(opened) == 6 * 52
    assert len(list((tmp_path / "cache").glob("*.index"))) == 2


def test_changed_file_is_indexed_alone(ranges, tmp_path, passes):
    cache = str(tmp_path / "cache")
    check(RecordReader(ranges, FIELDS, cache))
    write(ranges[1][0], [example(b"new", 1) for _ in range(20)])
    RecordReader(ranges, FIELDS, cache)
    assert passes == ["one", "other", "other"]


def test_splits_of_one_file_share_rows(ranges, tmp_path, passes, monkeypatch):
    """A longer range of a file parses only what is beyond the range that is known."""
    path, cache, parsed = ranges[0][0], str(tmp_path / "cache"), []
    real = file_index._located
    monkeypatch.setattr(
        file_index, "_located", lambda *given: parsed.append(given[1]) or real(*given)
    )
    for first, stop in ((3, 30), (30, 40), (0, 40), (5, 20)):
        found, _ = RecordReader([(path, first, stop)], FIELDS, cache).read(np.arange(stop - first))
        assert found.tolist() == IMAGES[first:stop]
    assert len(passes) == 2 and len(parsed) == len(set(parsed)) == 40


def test_only_the_files_that_are_needed(ranges, tmp_path, passes):
    """A look at some examples reads only the files that hold them."""
    cache = str(tmp_path / "cache")
    for only, files in ((np.array([51, 40]), ["other"]), (np.array([36]), ["other"])):
        found, _ = RecordReader(ranges, FIELDS, cache, only=only).read(only)
        assert found.tolist() == [IMAGES[5 + i] for i in only]
        assert passes == files
    check(RecordReader(ranges, FIELDS, cache))
    assert passes == ["other", "one"]


def test_fault_outside_of_a_range(tmp_path):
    """An example without an image is refused where it is used, from the cache too."""
    path = write(tmp_path / "file", [example(b"image", 0)] * 3 + [b"bad"] + [example(b"more", 1)])
    cache = str(tmp_path / "cache")
    for _ in range(2):
        found, _ = RecordReader([(path, 4, 5), (path, 0, 3)], FIELDS, cache).read(np.arange(4))
        assert found.tolist() == [b"more"] + [b"image"] * 3
        with pytest.raises(ValueError, match=r"damaged data in .*file, example 3: it is not a val"):
            RecordReader([(path, 2, 5)], FIELDS, cache)


def test_full_disk_of_a_large_index(ranges, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(index, "_IN_MEMORY", 1)
    monkeypatch.setattr(index.os, "posix_fallocate", full)
    check(RecordReader(ranges, FIELDS, str(tmp_path / "cache")))


def test_several_at_once(ranges, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: check(RecordReader(ranges, FIELDS, str(tmp_path))), range(12)))
    assert len(list(tmp_path.glob("*.index"))) == 2 and not list(tmp_path.glob("*.part"))


def test_unwritable_cache(ranges, tmp_path):
    (tmp_path / "file").write_text("in the way")
    check(RecordReader(ranges, FIELDS, str(tmp_path / "file" / "cache")))


@pytest.mark.parametrize(
    "bad", [b"this is no example", b"", example(None, 3)], ids=["bytes", "empty", "no image"]
)
def test_names_example_without_image(tmp_path, bad):
    path = write(tmp_path / "bad", [example(b"image", 0)] * 6 + [bad])
    with pytest.raises(ValueError, match=r"damaged data in .*bad, example 6: it ") as error:
        RecordReader([(path, 0, 7)], FIELDS)
    assert "\n" not in str(error.value)
    assert len(RecordReader([(path, 0, 6)], FIELDS)) == 6


def test_empty_index(ranges):
    path = ranges[0][0]
    assert len(load_or_build_index([(path, 5, 5)], FIELDS, None)) == 0
