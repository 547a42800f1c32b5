"""Inputs of predict: expansion of --inputs to files, and arrays in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.serving.inputs import arrays, files


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


def _unusable(folder: Path) -> dict[str, str]:
    """Writes files that hold no rows of int32 [2]; returns words of the error of each."""
    good = np.zeros([3, 2], np.int32)
    np.save(folder / "good.npy", good)
    whole = folder / "whole.npz"
    np.savez(whole, inputs=good)
    (folder / "empty.npy").write_bytes(b"")
    (folder / "cut.npy").write_bytes((folder / "good.npy").read_bytes()[:-4])
    (folder / "cut.npz").write_bytes(whole.read_bytes()[:-30])
    (folder / "text.npy").write_text("hello")
    np.savez(folder / "nothing.npz")
    np.save(folder / "floats.npy", good.astype(np.float64))
    np.save(folder / "wide.npy", np.zeros([3, 5], np.int32))
    np.save(folder / "number.npy", np.int32(3))
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    (folder / "picture.png").write_bytes(b"")
    return {
        "empty.npy": "",
        "cut.npy": "",
        "cut.npz": "zip",
        "text.npy": "",
        "nothing.npz": "",
        "floats.npy": "same_kind",
        "wide.npy": "has shape (3, 5), expected rows of (2,)",
        "number.npy": "has shape (), expected rows of (2,)",
        "objects.npy": "allow_pickle",
        "picture.png": "is neither .npy nor .npz",
    }


def test_unusable_arrays_are_told_and_the_others_read(tmp_path: Path):
    """Each file that cannot be used has an error of one line; the rows of the others are read."""
    words = _unusable(tmp_path)
    paths = [str(tmp_path / name) for name in [*words, "good.npy", "whole.npz"]]
    found = list(arrays(paths, tf.TensorSpec([2], tf.int32)))
    errors = {Path(each.name).name: each.error for each in found if each.inputs is None}
    assert list(errors) == list(words)
    for name, each in words.items():
        assert errors[name] and each in errors[name] and "\n" not in errors[name], name
    assert [each.inputs.dtype for each in found if each.inputs is not None] == [np.int32] * 6
