"""Tests a folder of JPEGs of many sizes, some damaged: the refusal, training, predict, export."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.cli.command import Warm
from tests.cli.test_bad_input import line_of
from tests.cli.test_one_picture import by_class, predicted

CLASSES = {"berry": (180, 40, 60), "lake": (40, 80, 190)}  # mean color of the pictures, RGB
COUNTS = {"train": 950, "test": 50}  # pictures of each class
DAMAGED = ("train/berry/cut.jpg", "train/lake/empty.jpg", "test/lake/words.jpg")
OPTIONS = ("--model=logistic", "--image_size=16,12", "--epochs=1", "--global_batch_size=32")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes 2,000 JPEGs with sides of 17 to 60 pixels, three damaged files and a text file.

    Returns the folder, which has a subfolder for each split.
    """
    root, random = tmp_path_factory.mktemp("folder") / "views", np.random.default_rng(0)
    for split, count in COUNTS.items():
        for name, color in CLASSES.items():
            place = root / split / name
            place.mkdir(parents=True)
            coarse = np.clip(color + random.normal(0, 40, (count, 4, 4, 3)), 0, 255)
            for number, image in enumerate(coarse.astype(np.uint8)):
                size = tuple(random.integers(17, 61, 2).tolist())
                resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
                resized.save(place / f"{number:04}.jpg", quality=85)
    cut, empty, words = (root / name for name in DAMAGED)
    cut.write_bytes((root / "train/berry/0000.jpg").read_bytes()[:-100])
    empty.touch()
    words.write_text("not an image")
    (root / "train/lake/notes.txt").write_text("taken in June")
    return root


def test_damaged_files_are_named_first(warm: Warm, pictures: Path, tmp_path: Path):
    """One error line names the damaged files of all splits, and nothing is written."""
    run_dir = tmp_path / "run"
    line = line_of(warm.run(f"--dataset=folder:{pictures}", f"--run_dir={run_dir}", *OPTIONS))
    assert line.startswith(f"3 of 2003 pictures in {pictures} cannot be read: ")
    assert all(f"{pictures / name} (" in line for name in DAMAGED)
    assert line.endswith("leave them out with --skip_damaged=true")
    assert not run_dir.exists()


def test_files_match_training(warm: Warm, pictures: Path, tmp_path: Path):
    """Files have the probabilities of the test split, in predict and in the exported model.

    Random crops apply to training only. `tests/unit/test_folder.py` compares the pixels of all
    values of `--fit`.
    """
    given = f"--dataset=folder:{pictures}", "--fit=crop", "--skip_damaged=true"
    run = warm.train(tmp_path / "run", *given, "--augment=resized_crop:0.5", *OPTIONS)
    assert [f"skipped {pictures / name} (" in run.outcome.out for name in DAMAGED] == [True] * 3
    assert "ignored 1 files" in run.outcome.out
    assert run.result["test"]["accuracy"] > 0.95

    # A split of a folder is in the order of its files' digests.
    paths = [path for path in pictures.glob("test/*/*.jpg") if path.name != "words.jpg"]
    paths.sort(key=lambda path: hashlib.sha256(path.read_bytes()).hexdigest())
    files = tmp_path / "files"
    files.mkdir()
    for number, path in enumerate(paths):
        shutil.copy(path, files / f"{number:04}.jpg")
    found = predicted(warm, run, tmp_path / "of_files", f"--inputs={files}")
    split = predicted(warm, run, tmp_path / "of_split", "--split=test")
    expected = np.array([by_class(each) for each in split])
    assert expected.shape == (2 * COUNTS["test"], 2)
    found_by_class = np.array([by_class(each) for each in found])
    np.testing.assert_allclose(found_by_class, expected, rtol=0, atol=1e-6)

    outcome = warm.run("--mode=export", f"--run_dir={run.run_dir}")
    assert outcome.status == 0 and outcome.err == "", outcome.said()
    assert json.loads(outcome.out.splitlines()[-1])["class_names"] == sorted(CLASSES)
    serve = tf.saved_model.load(str(run.run_dir / "export")).signatures["serving_default"]
    for path, row in zip(paths[:20], expected, strict=False):
        image = tf.constant(np.asarray(Image.open(path))[np.newaxis])
        served = serve(images=image)["probabilities"].numpy()[0]
        np.testing.assert_allclose(served, row, rtol=0, atol=1e-6)
