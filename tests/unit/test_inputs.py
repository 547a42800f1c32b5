"""Expansion of --inputs to files."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.serving.inputs import files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Creates visible and hidden files in a folder and in subfolders; returns the folder."""
    for name in ("b.png", "a.jpg", "deep/c.png", ".hidden.png", ".git/d.png", "odd[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "none").mkdir()
    return tmp_path


def named(folder: Path, inputs: str) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in files(inputs)]


def test_folder_lists_visible_files(folder: Path):
    assert named(folder, str(folder)) == ["a.jpg", "b.png", "deep/c.png", "odd[1].png"]


def test_order_without_duplicates(folder: Path):
    asked = f"{folder}/b.png, {folder}/*.png,{folder}/**/c.png"
    assert named(folder, asked) == ["b.png", "odd[1].png", "deep/c.png"]


def test_literal_name_before_pattern(folder: Path):
    assert named(folder, f"{folder}/odd[1].png") == ["odd[1].png"]


@pytest.mark.parametrize("inputs", ["nowhere.png", "*.nothing", "none", " , "])
def test_refuses_missing_files(folder: Path, inputs: str):
    with pytest.raises(ValueError, match="--inputs"):
        files(",".join(f"{folder}/{part}" if part.strip() else part for part in inputs.split(",")))
