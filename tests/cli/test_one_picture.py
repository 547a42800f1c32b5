"""Tests that image files have the predictions of their split, in predict and in the export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from pipelines.sources import digits
from tests.choices import seldom
from tests.cli.command import Command, Run, Warm

COUNT = 120
SIZES = {"digits": "5,11", "fashion_mnist": "14,28", "cifar10": "20,9"}


def read_stored_images(name: str, cache_dir: str, data_dir: str) -> np.ndarray:
    """Returns the first `COUNT` stored images of the test split, uint8 [COUNT, H, W, C]."""
    builder = (
        digits.prepared(cache_dir) if name == "digits" else tfds.builder(name, data_dir=data_dir)
    )
    some = builder.as_dataset(split="test", shuffle_files=False).take(COUNT)
    return np.stack([example["image"] for example in some.as_numpy_iterator()])


@pytest.fixture(params=["digits", seldom("fashion_mnist"), "cifar10"])
def trained(request, warm: Warm, tmp_path: Path) -> tuple[Run, str, str]:
    """Trains on resized images; returns the run, the name of its data set, and data_dir or ""."""
    name = request.param
    place = "" if name == "digits" else request.getfixturevalue("real_data")
    if place and not (Path(place) / name).is_dir():
        pytest.skip(f"{name} is not prepared")
    options = f"--dataset={name}", f"--image_size={SIZES[name]}", "--model=logistic"
    where = (f"--data_dir={place}",) if place else ()
    short = "--train_split=train[:1000]", "--epochs=2", "--learning_rate=0.002"
    return warm.train(tmp_path / "run", *options, *where, *short), name, place


def predicted(warm: Warm, run: Run, out: Path, asked: str) -> list[dict]:
    """Runs `--mode=predict` and returns the predictions in predictions.json, with all classes.

    Args:
      warm: runs the command.
      run: the run.
      out: directory for the predictions.
      asked: option `--inputs` or `--split`.
    """
    options = f"--run_dir={run.run_dir}", f"--predictions={out}", "--top_k=10", asked
    outcome = warm.run("--mode=predict", *options)
    assert outcome.status == 0, outcome.said()
    return json.loads((out / "predictions.json").read_text())["predictions"]


def by_class(prediction: dict) -> list[float]:
    """Returns the probabilities of a prediction in the order of the class names."""
    return [each["probability"] for each in sorted(prediction["top"], key=lambda top: top["class"])]


def test_files_match_split(trained, warm: Warm, cache_dir: str, tmp_path: Path):
    """Images in files have the probabilities of the split, in predict and in the exported model."""
    run, name, place = trained
    images = read_stored_images(name, cache_dir, place)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(images):
        picture = image if image.shape[-1] == 3 else image[..., 0]
        Image.fromarray(picture).save(folder / f"{number:04}.png")
    files = predicted(warm, run, tmp_path / "files", f"--inputs={folder}")
    split = predicted(warm, run, tmp_path / "split", f"--split=test[:{COUNT}]")
    expected = np.array([by_class(each) for each in split])
    found = np.array([by_class(each) for each in files])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)  # files have six digits

    outcome = warm.run("--mode=export", f"--run_dir={run.run_dir}")
    assert outcome.status == 0 and outcome.err == "", outcome.said()
    serve = tf.saved_model.load(str(run.run_dir / "export")).signatures["serving_default"]
    served = serve(images=tf.constant(images))["probabilities"].numpy()
    names = json.loads(outcome.out.splitlines()[-1])["class_names"]
    order = sorted(range(len(names)), key=lambda number: names[number])
    np.testing.assert_allclose(served[:, order], expected, rtol=0, atol=2e-6)


@pytest.mark.full
def test_no_tensorflow_warnings(command: Command, tmp_path: Path):
    """TensorFlow's Python code prints no warning, even if the log level of C++ is set."""
    options = "--flagfile=quickstart.flags", "--epochs=6", "--report=true"
    outcome = command.run(f"--run_dir={tmp_path / 'run'}", *options, TF_CPP_MIN_LOG_LEVEL="3")
    said = [line for line in outcome.err.splitlines() if "WARNING:tensorflow" in line]
    assert outcome.status == 0 and said == [], outcome.said()
