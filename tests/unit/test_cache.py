"""The cache of decoded data: damaged entries are never used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import checkpoint_file
from engine.runtime.atomic_files import replace_file
from engine.runtime.lock import RunLock
from pipelines import nests
from pipelines.storage import cache
from pipelines.storage.records import RecordSplit

IMAGES = np.arange(5 * 4 * 3 * 2, dtype=np.uint8).reshape(5, 4, 3, 2)
LABELS = np.array([3, 1, 4, 1, 5], np.int32)
SPEC = nests.spec_of((IMAGES, LABELS))


def entry(place):
    (path,) = place.glob("*.decoded")
    return path


def test_load_returns_stored(tmp_path):
    cache.store(str(tmp_path), "name", (IMAGES, LABELS))
    images, labels = cache.load(str(tmp_path), "name", SPEC)
    assert np.array_equal(images, IMAGES)
    assert np.array_equal(labels, LABELS)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)


def test_load_without_directory(tmp_path):
    assert cache.load(str(tmp_path / "none"), "name", SPEC) is None


def test_detects_flipped_bit(tmp_path):
    cache.store(str(tmp_path), "name", (IMAGES, LABELS))
    whole = entry(tmp_path).read_bytes()
    header = whole.index(b"\n") + 1
    for at in [*range(header, len(whole)), *range(0, header, 7)]:
        damaged = bytearray(whole)
        damaged[at] ^= 4
        entry(tmp_path).write_bytes(damaged)
        found = cache.load(str(tmp_path), "name", SPEC)
        assert found is None or np.array_equal(found[0], IMAGES), at


@pytest.mark.parametrize("size", [0, 1, 20, 150, -1])
def test_detects_truncated_entry(tmp_path, size):
    cache.store(str(tmp_path), "name", (IMAGES, LABELS))
    entry(tmp_path).write_bytes(entry(tmp_path).read_bytes()[:size])
    assert cache.load(str(tmp_path), "name", SPEC) is None


def test_key(tmp_path):
    """A key depends on the contents, the ranges and the recipe, but not on the path."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"abc")
    other.write_bytes(b"abc")

    def key(path, stop, recipe):
        return cache.key(RecordSplit("train", ((str(path), 0, stop),)), recipe)

    first = key(one, 2, "recipe")
    assert key(other, 2, "recipe") == first
    assert key(one, 3, "recipe") != first
    assert key(one, 2, "another") != first
    one.write_bytes(b"abd")
    assert key(one, 2, "recipe") != first


def test_unwritable_cache(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache.store(str(blocked), "name", (IMAGES, LABELS))
    assert cache.load(str(blocked), "name", SPEC) is None


def test_evicts_least_recently_used(tmp_path, monkeypatch):
    for i, name in enumerate("abc"):
        cache.store(str(tmp_path), name, (IMAGES, LABELS))
        os.utime(tmp_path / f"{name}.decoded", (i, i))
    assert cache.load(str(tmp_path), "a", SPEC) is not None  # recently used
    size = os.path.getsize(tmp_path / "a.decoded")
    monkeypatch.setattr(cache, "_BUDGET", 2 * size)
    cache.store(str(tmp_path), "d", (IMAGES, LABELS))
    assert sorted(path.name[0] for path in tmp_path.glob("*.decoded")) == ["a", "d"]


@pytest.mark.parametrize("mask", [0o022, 0o007])
def test_others_can_read(tmp_path, mask):
    """Files have the permissions of any new file: several users may share a cache."""
    before = os.umask(mask)
    try:
        cache.store(str(tmp_path / "cache"), "name", (IMAGES, LABELS))
        replace_file(str(tmp_path / "result.json"), "{}")
        checkpoint_file.write(str(tmp_path / "ckpt-1.npz"), {}, {"labels": LABELS})
        with RunLock(str(tmp_path)):
            files = [path for path in tmp_path.rglob("*") if path.is_file()]
            modes = [path.stat().st_mode & 0o777 for path in files]
    finally:
        os.umask(before)
    assert modes == [0o666 & ~mask] * 4


def test_failed_write_leaves_no_entry(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    cache.store(str(tmp_path), "name", (IMAGES, LABELS))
    assert list(tmp_path.iterdir()) == []


WRITER = """
import os, pathlib, sys
from pipelines.storage import cache
with cache.written(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.readline()
"""


def test_deletes_what_a_killed_process_left(tmp_path):
    def temporary():
        return list(tmp_path.glob("*.part"))

    command = [sys.executable, "-c", WRITER, str(tmp_path / "large.decoded")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, cwd=Path(cache.__file__).parents[2]) as writer:
        assert writer.stdout.readline() == "writing\n"
        (part,) = temporary()
        os.utime(part, (0, 0))
        cache.store(str(tmp_path), "name", (IMAGES, LABELS))
        assert temporary() == [part]  # its process lives
        writer.kill()
    (tmp_path / "mine.part").write_text("not of the cache")
    os.utime(tmp_path / "mine.part", (0, 0))
    os.utime(part)
    cache.store(str(tmp_path), "name", (IMAGES, LABELS))
    assert part in temporary()  # written lately, maybe by another machine
    os.utime(part, (0, 0))
    cache.store(str(tmp_path), "name", (IMAGES, LABELS))
    assert temporary() == [tmp_path / "mine.part"]
