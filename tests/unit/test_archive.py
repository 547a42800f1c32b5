"""A checkpoint's file: whole or not there, and it proves itself."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from engine.keeping import archive
from engine.keeping.archive import DamagedError, OtherFormatError

ARRAYS = {
    "model/layers/0/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "model/layers/0/bias": np.array([], np.float32),
    "step": np.array(1 << 40, np.int64),
    "sums": np.array([np.nan, -0.0, np.inf]),
    "half": np.array([1, 2.5], ml_dtypes.bfloat16),
    "small": np.array(7.0, ml_dtypes.bfloat16),
    "turned": np.arange(6, dtype=np.float16).reshape(2, 3).T,
    "flag": np.array([True, False]),
}
FACTS = {"number": 3, "step": 1 << 40, "data": "abc"}


@pytest.fixture
def path(tmp_path) -> str:
    path = str(tmp_path / "ckpt-3.npz")
    archive.write(path, FACTS, ARRAYS)
    return path


def test_what_is_read_is_what_was_written_to_the_bit(path):
    found = archive.read(path)
    assert found.facts == FACTS
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes(), name


def test_numpy_alone_reads_it(path):
    with np.load(path) as found:
        assert np.array_equal(found["step"], ARRAYS["step"])
        assert np.array_equal(found["half"].view(ml_dtypes.bfloat16), ARRAYS["half"])


def test_what_it_is_can_be_read_without_the_rest(path):
    facts = archive.read_facts(path)
    described = facts.pop("arrays")
    assert facts == FACTS
    assert described["model/layers/0/kernel"]["shape"] == [2, 3, 4]
    assert described["half"]["dtype"] == "bfloat16"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_what_cannot_be_written_leaves_nothing_and_what_was_there_stays(path, monkeypatch, error):
    before = Path(path).read_bytes()

    def fails(descriptor):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=os.strerror(error)):
        archive.write(path, FACTS, {"other": np.zeros(3)})
    with pytest.raises(OSError, match=os.strerror(error)):
        archive.copy(path, path.replace("ckpt-3", "ckpt-4"))
    assert Path(path).read_bytes() == before
    assert os.listdir(os.path.dirname(path)) == ["ckpt-3.npz"]


def test_a_copy_is_another_file_of_the_same_bytes(path):
    other = path.replace("ckpt-3", "best-3")
    archive.copy(path, other)
    assert Path(other).read_bytes() == Path(path).read_bytes()
    assert not os.path.samefile(path, other)  # damage to one is not damage to the other


def test_what_is_missing_is_damaged(tmp_path):
    with pytest.raises(DamagedError, match=r"cannot load checkpoint .*gone.*No such file"):
        archive.read(str(tmp_path / "gone.npz"))


def test_an_array_that_is_not_what_the_manifest_says_is_damage(path):
    """As a program would change it, with sound checksums of its own."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    members["step.npy"] = members["step.npy"][:-1] + b"\x01"
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
    with pytest.raises(DamagedError, match="step is not what was written"):
        archive.read(path)


def test_a_format_of_another_version_is_told_apart_from_damage(path):
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(members["manifest.json"]) | {"format": 99}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in {**members, "manifest.json": json.dumps(manifest)}.items():
            new.writestr(name, content)
    for read in (archive.read, archive.read_facts):
        with pytest.raises(OtherFormatError, match=r"format 99.*reads format 1.*--run_dir"):
            read(path)
