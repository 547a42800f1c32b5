"""A file is the old one or the new one, never half of one."""

import os

import pytest

from engine.keeping.files import replace_file


def test_the_file_holds_the_text_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "result.json"
    replace_file(str(path), "ä\nb\n")
    assert path.read_bytes() == "ä\nb\n".encode()
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_shorter_text_replaces_a_longer_one_whole(tmp_path):
    path = tmp_path / "result.json"
    replace_file(str(path), "long" * 1000)
    replace_file(str(path), "short")
    assert path.read_text() == "short"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_when_writing_fails_the_old_file_stays(tmp_path, monkeypatch, failing):
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


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    replace_file(str(path), "old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(str(path), "\udcff")
    assert path.read_text() == "old"


def test_the_text_is_on_the_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (happened.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("replace"), replace(a, b)))
    replace_file(str(tmp_path / "result.json"), "text")
    assert happened == ["fsync", "replace"]


def test_a_part_left_by_a_kill_is_in_nobodys_way(tmp_path):
    (tmp_path / "result.json.part").write_text("half of")
    replace_file(str(tmp_path / "result.json"), "whole")
    assert (tmp_path / "result.json").read_text() == "whole"
    assert os.listdir(tmp_path) == ["result.json"]
