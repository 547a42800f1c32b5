"""Tests that predict and export need no data: specs, classes and preprocessing are in the run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.cli.command import QUICK, Outcome, Run, Warm

NAMES = ("cat", "dog", "owl")


class Animals(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS data set of images [8, 8, 1] of three classes, each with a level of grey."""

    VERSION = tfds.core.Version("1.0.0")
    NAMES = NAMES

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1)),
            "label": tfds.features.ClassLabel(names=self.NAMES),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(120), "test": self._generate_examples(30)}

    def _generate_examples(self, examples):
        for index in range(examples):
            name = NAMES[index % 3]
            yield index, {"image": picture(name, index), "label": name}


class Reordered(Animals, skip_registration=True):
    """The data set of `Animals` with its classes in reverse order."""

    name = "animals"
    NAMES = NAMES[::-1]


def picture(name: str, seed: int) -> np.ndarray:
    """Returns an image of a class, uint8 [8, 8, 1]: black border, the class's grey inside."""
    level = 70 + 80 * NAMES.index(name)
    noise = np.random.default_rng(seed).integers(0, 10, (4, 4, 1))
    image = np.zeros((8, 8, 1), np.uint8)
    image[2:6, 2:6] = level + noise
    return image


def prepared(root: Path, builder: type[Animals]) -> str:
    """Prepares a data set named "animals" in `root`; returns `root`, the value for `--data_dir`."""
    tfds.disable_progress_bar()
    builder(data_dir=str(root)).download_and_prepare()
    return str(root)


@pytest.fixture
def run(warm: Warm, tmp_path: Path) -> Run:
    """Returns a run on `Animals` with a test accuracy of 100%."""
    data_dir = prepared(tmp_path / "data", Animals)
    options = ("--dataset=animals", f"--data_dir={data_dir}", "--model=mlp", "--hidden=16")
    options += ("--epochs=20", "--global_batch_size=20", "--learning_rate=0.01")
    run = warm.train(tmp_path / "run", *options, *QUICK)
    assert run.result["test"]["accuracy"] == 1.0
    return run


def asked(warm: Warm, run: Run, *arguments: str) -> Outcome:
    return warm.run(f"--run_dir={run.run_dir}", *arguments)


def predicted(warm: Warm, run: Run, folder: Path) -> list[str]:
    """Predicts an image file of each class; returns the names of the predicted classes."""
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        Image.fromarray(picture(name, 1000)[..., 0]).save(folder / f"{name}.png")
    outcome = asked(warm, run, "--mode=predict", f"--inputs={folder}")
    assert outcome.status == 0, outcome.said()
    predictions = json.loads((run.run_dir / "predictions" / "predictions.json").read_text())
    return [each["class"] for each in predictions["predictions"]]


_SERVED = """
import sys
import numpy as np
import tensorflow as tf

serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = np.load(sys.argv[2])
print(*[label.decode() for label in serve(images=tf.constant(images))["labels"].numpy()])
"""


def served(run: Run, folder: Path) -> list[str]:
    """Returns the labels that the export predicts in a process that imports only TensorFlow."""
    images = folder / "images.npy"
    np.save(images, np.stack([picture(name, 1000) for name in NAMES]))
    command = [sys.executable, "-c", _SERVED, str(run.run_dir / "export"), str(images)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_deleted_data(run, warm, tmp_path):
    """Predict and export work after the data set is deleted."""
    before = predicted(warm, run, tmp_path / "files")
    assert before == list(NAMES)
    shutil.rmtree(tmp_path / "data")
    assert predicted(warm, run, tmp_path / "files") == before
    outcome = asked(warm, run, "--mode=export")
    assert outcome.status == 0 and "off the run on 64 random inputs" in outcome.out, outcome.said()
    assert served(run, tmp_path) == list(NAMES)


def test_reordered_classes(run, warm, tmp_path):
    """Predicted classes keep their names; evaluation on a data set of another order is refused."""
    data_dir = tmp_path / "data"
    shutil.rmtree(data_dir)
    prepared(data_dir, Reordered)
    assert predicted(warm, run, tmp_path / "files") == list(NAMES)
    assert asked(warm, run, "--mode=export").status == 0
    assert served(run, tmp_path) == list(NAMES)
    outcome = asked(warm, run, "--mode=evaluate")
    assert outcome.status == 2 and outcome.err.count("\n") == 1, outcome.said()
    assert "label 0 was 'cat' and is 'owl'" in outcome.err
    outcome = asked(warm, run, f"--flagfile={run.run_dir}/config.flags", "--epochs=21")
    assert outcome.status == 2 and "its examples have changed" in outcome.err, outcome.said()


def test_ignored_class_of_reordered_classes(warm, tmp_path):
    """The class that a run ignores is ignored by name, too: owl, label 2, and later label 0."""
    data_dir = prepared(tmp_path / "data", Animals)
    options = ("--dataset=animals", f"--data_dir={data_dir}", "--model=logistic", "--epochs=1")
    run = warm.train(tmp_path / "run", *options, "--ignore_label=2")
    shutil.rmtree(tmp_path / "data")
    prepared(tmp_path / "data", Reordered)
    outcome = asked(warm, run, "--mode=predict", "--split=test")
    assert outcome.status == 0, outcome.said()
    found = json.loads((run.run_dir / "predictions" / "predictions.json").read_text())
    assert {each.get("label") for each in found["predictions"]} == {"cat", "dog", None}


def test_split_of_reordered_classes(run, warm, tmp_path):
    """Labels of a split are compared by class name, whatever their order in the data set."""
    shutil.rmtree(tmp_path / "data")
    prepared(tmp_path / "data", Reordered)
    outcome = asked(warm, run, "--mode=predict", "--split=test")
    assert outcome.status == 0, outcome.said()
    assert json.loads(outcome.out.splitlines()[-1])["accuracy"] == 1.0
