"""Atomic replacement of files: a file has the old contents or the new, never half of them."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runtime.atomic_files import replace_file


def test_replace_leaves_one_file(tmp_path):
    path = tmp_path / "result.json"
    replace_file(str(path), "ä\nb\n")
    assert path.read_bytes() == "ä\nb\n".encode()
    assert os.listdir(tmp_path) == ["result.json"]


def test_shorter_text_replaces_longer(tmp_path):
    path = tmp_path / "result.json"
    replace_file(str(path), "long" * 1000)
    replace_file(str(path), "short")
    assert path.read_text() == "short"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_write_keeps_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "result.json"
    replace_file(str(path), "old")

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="disk full"):
            replace_file(str(path), "new")
    assert path.read_text() == "old"
    replace_file(str(path), "new")
    assert path.read_text() == "new"


def test_unencodable_text_keeps_old_file(tmp_path):
    path = tmp_path / "result.json"
    replace_file(str(path), "old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(str(path), "\udcff")
    assert path.read_text() == "old"


def test_fsync_before_rename(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (happened.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("replace"), replace(a, b)))
    replace_file(str(tmp_path / "result.json"), "text")
    assert happened == ["fsync", "replace"]


def test_stale_part_file(tmp_path):
    """A `.part` file left by a killed process is overwritten by the next write."""
    (tmp_path / "result.json.part").write_text("half of")
    replace_file(str(tmp_path / "result.json"), "whole")
    assert (tmp_path / "result.json").read_text() == "whole"
    assert os.listdir(tmp_path) == ["result.json"]


_WRITER = """
import sys
from engine.runtime.atomic_files import replace_file
path, letter = sys.argv[1:]
for _ in range(150):
    replace_file(path, letter * 200_000, durable=False)
"""


def test_concurrent_writers(tmp_path):
    """Each process writes the file whole, as with two modes in one run directory."""
    path = tmp_path / "report.html"
    replace_file(str(path), "a" * 200_000)
    root = Path(__file__).parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), letter],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for letter in "abc"
    ]
    while any(writer.poll() is None for writer in writers):
        assert path.read_text() in [letter * 200_000 for letter in "abc"]
    for writer in writers:
        assert writer.communicate()[1] == "" and writer.returncode == 0
    assert os.listdir(tmp_path) == ["report.html"]


def test_locked_part_file(tmp_path):
    """A `.part` file that another process is writing is not touched."""
    other = tmp_path / "result.json.part"
    with open(other, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("half of")
        file.flush()
        replace_file(str(tmp_path / "result.json"), "whole")
        assert other.read_text() == "half of"
    assert (tmp_path / "result.json").read_text() == "whole"
    assert sorted(os.listdir(tmp_path)) == ["result.json", "result.json.part"]
