"""Checkpoint files: written completely or not at all, and validated when read."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from engine.checkpoint import checkpoint_file
from engine.checkpoint.checkpoint_file import DamagedError, FormatVersionError

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
    checkpoint_file.write(path, FACTS, ARRAYS)
    return path


def test_read_restores_bits(path):
    found = checkpoint_file.read(path)
    assert found.facts == FACTS
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes(), name


def test_numpy_can_load(path):
    with np.load(path) as found:
        assert np.array_equal(found["step"], ARRAYS["step"])
        assert np.array_equal(found["half"].view(ml_dtypes.bfloat16), ARRAYS["half"])


def test_read_facts_only(path):
    facts = checkpoint_file.read_metadata(path)
    described = facts.pop("arrays")
    assert facts == FACTS
    assert described["model/layers/0/kernel"]["shape"] == [2, 3, 4]
    assert described["half"]["dtype"] == "bfloat16"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_failed_write_keeps_old_file(path, monkeypatch, error):
    before = Path(path).read_bytes()

    def fails(descriptor):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=os.strerror(error)):
        checkpoint_file.write(path, FACTS, {"other": np.zeros(3)})
    with pytest.raises(OSError, match=os.strerror(error)):
        checkpoint_file.copy(path, path.replace("ckpt-3", "ckpt-4"))
    assert Path(path).read_bytes() == before
    assert os.listdir(os.path.dirname(path)) == ["ckpt-3.npz"]


def test_copy_is_separate_file(path):
    other = path.replace("ckpt-3", "best-3")
    checkpoint_file.copy(path, other)
    assert Path(other).read_bytes() == Path(path).read_bytes()
    assert not os.path.samefile(path, other)  # damage to one is not damage to the other


def test_missing_file(tmp_path):
    with pytest.raises(DamagedError, match=r"cannot load checkpoint .*gone.*No such file"):
        checkpoint_file.read(str(tmp_path / "gone.npz"))


def test_array_differs_from_manifest(path):
    """A changed array is detected even if the zip checksums are valid."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    members["step.npy"] = members["step.npy"][:-1] + b"\x01"
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
    with pytest.raises(DamagedError, match="step is not what was written"):
        checkpoint_file.read(path)


def test_other_format_version(path):
    """Another format version raises FormatVersionError, not DamagedError."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(members["manifest.json"]) | {"format": 99}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in {**members, "manifest.json": json.dumps(manifest)}.items():
            new.writestr(name, content)
    for read in (checkpoint_file.read, checkpoint_file.read_metadata):
        with pytest.raises(FormatVersionError, match=r"format 99.*reads format 1.*--run_dir"):
            read(path)
