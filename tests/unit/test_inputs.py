"""What --inputs names."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.serving.inputs import files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files in folders, one of each hidden."""
    for name in ("b.png", "a.jpg", "deep/c.png", ".hidden.png", ".git/d.png", "odd[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "none").mkdir()
    return tmp_path


def named(folder: Path, inputs: str) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in files(inputs)]


def test_a_folder_is_all_files_below_it_that_are_not_hidden(folder: Path):
    assert named(folder, str(folder)) == ["a.jpg", "b.png", "deep/c.png", "odd[1].png"]


def test_files_and_patterns_come_in_their_order_and_once(folder: Path):
    asked = f"{folder}/b.png, {folder}/*.png,{folder}/**/c.png"
    assert named(folder, asked) == ["b.png", "odd[1].png", "deep/c.png"]


def test_a_name_that_looks_like_a_pattern_is_itself(folder: Path):
    assert named(folder, f"{folder}/odd[1].png") == ["odd[1].png"]


@pytest.mark.parametrize("inputs", ["nowhere.png", "*.nothing", "none", " , "])
def test_what_names_nothing_is_refused(folder: Path, inputs: str):
    with pytest.raises(ValueError, match="--inputs"):
        files(",".join(f"{folder}/{part}" if part.strip() else part for part in inputs.split(",")))
