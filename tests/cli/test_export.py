"""Tests that the SavedModel of `--mode=export` serves in a process that imports only TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipelines.sources import digits
from tests.choices import seldom
from tests.cli.command import HANG, Run, Warm

SERVED = """
import json, sys
import numpy as np
import tensorflow as tf
folder, images, out = sys.argv[1:]
loaded = tf.saved_model.load(folder)
serve = loaded.signatures["serving_default"]
batches = [serve(images=tf.constant(some)) for some in np.array_split(np.load(images), 3)]
found = {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}
found["class_names"] = loaded.class_names().numpy()
np.savez(out, **{k: v.astype("S") if v.dtype == object else v for k, v in found.items()})
ours = [name for name in sys.modules if name.split(".")[0] in ("engine", "models", "pipelines")]
assert not ours, ours
"""


@pytest.fixture(scope="module")
def run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run with an EMA of the weights and with `--restore_best`."""
    options = "--flagfile=quickstart.flags", "--epochs=4", "--ema=0.9", "--restore_best"
    return warm.train(tmp_path_factory.mktemp("export") / "run", *options)


@pytest.fixture(scope="module")
def test_split(cache_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test split of digits: images, uint8 [360, 8, 8, 1], and labels, in file order."""
    some = list(digits.prepared(cache_dir).as_dataset(split="test").as_numpy_iterator())
    return np.stack([e["image"] for e in some]), np.array([e["label"] for e in some])


def served(folder: Path, images: np.ndarray, tmp_path: Path) -> dict[str, np.ndarray]:
    """Returns the outputs of a SavedModel, and "class_names", from a separate process.

    Args:
      folder: folder of the SavedModel.
      images: images, uint8 [n, height, width, channels].
      tmp_path: working directory of the process.
    """
    np.save(tmp_path / "images.npy", images)
    line = [sys.executable, "-c", SERVED, str(folder), "images.npy", "out.npz"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ""}
    done = subprocess.run(
        line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(tmp_path / "out.npz"))


def export(warm: Warm, run: Run, *arguments: str) -> dict:
    outcome = warm.run("--mode=export", f"--run_dir={run.run_dir}", *arguments)
    assert outcome.status == 0, outcome.said()
    return json.loads(outcome.out.splitlines()[-1])


def test_served_accuracy(run: Run, warm: Warm, test_split, tmp_path: Path):
    """The SavedModel, loaded in another process, has the test accuracy of result.json."""
    facts = export(warm, run)
    images, labels = test_split
    found = served(run.run_dir / "export", images, tmp_path)
    assert (found["classes"] == labels).sum() == round(run.result["test"]["accuracy"] * 360)
    assert found["probabilities"].shape == (360, 10)
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
    names = [name.decode() for name in found["class_names"].tolist()]
    assert names == facts["class_names"] == [str(label) for label in range(10)]
    assert [name.decode() for name in found["labels"].tolist()] == [
        names[c] for c in found["classes"]
    ]
    assert facts["difference"] <= 1e-6 and facts["averaged"] is True
    assert "best" in facts["weights"]


def exported_variables(folder: Path) -> bytes:
    """Returns the bytes of all variables of a SavedModel that are not scalars."""
    saved = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    names = [name for name, shape in saved.get_variable_to_shape_map().items() if shape]
    return b"".join(saved.get_tensor(name).tobytes() for name in sorted(names))


def test_choice_of_weights(run: Run, warm: Warm):
    """Each combination of `--averaged` and `--weights` exports different weights.

    If the best epoch is the last, only the choices of `--averaged` must differ.
    """
    kinds = ("--averaged=yes", "--averaged=no"), ("--weights=best", "--weights=newest")
    found = {}
    for averaged in kinds[0]:
        for weights in kinds[1]:
            export(warm, run, averaged, weights)
            found[averaged, weights] = exported_variables(run.run_dir / "export")
    assert len(set(found.values())) == 4 or run.result["best"]["step"] == run.result["step"]
    assert found["--averaged=yes", "--weights=newest"] != found["--averaged=no", "--weights=newest"]


def test_export_replaces_previous(run: Run, warm: Warm):
    export(warm, run)
    (run.run_dir / "export" / "old").write_text("of the one before")
    export(warm, run)
    left = {path.name for path in run.run_dir.iterdir() if path.name.startswith("export")}
    assert left == {"export"} and not (run.run_dir / "export" / "old").exists()
    assert json.loads((run.run_dir / "export" / "about.json").read_text())["model"] == "cnn"


def test_missing_ema_refused(warm: Warm, tmp_path: Path):
    plain = warm.train(tmp_path / "run", "--model=logistic", "--epochs=1")
    outcome = warm.run("--mode=export", f"--run_dir={plain.run_dir}", "--averaged=yes")
    assert outcome.status == 2 and "no averaged weights" in outcome.err, outcome.said()
    assert not (plain.run_dir / "export").exists()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", seldom("mixed_float16")])
def test_no_tflite_of_16_bit_run(warm: Warm, tmp_path: Path, precision: str):
    """A 16-bit run is exported without a TFLite model; one line of the output says so."""
    run = warm.train(tmp_path / "run", "--epochs=1", f"--precision={precision}")
    outcome = warm.run("--mode=export", f"--run_dir={run.run_dir}")
    assert outcome.status == 0 and outcome.err == "", outcome.said()
    assert outcome.out.count("no TFLite model") == 2  # the line, and the JSON
    assert "error:" not in outcome.out and "mlir" not in outcome.out.lower()
    folder = run.run_dir / "export"
    assert not (folder / "model.tflite").exists()
    assert (folder / "tflite_error.txt").stat().st_size > 0
    assert json.loads((folder / "about.json").read_text())["images"] == [8, 8, 1]


@pytest.mark.parametrize("options", [("--precision=mixed_bfloat16",), ("--virtual_devices=2",)])
def test_bfloat16_and_replicas(warm: Warm, tmp_path: Path, options):
    run = warm.train(tmp_path / "run", "--model=cnn", "--epochs=1", *options)
    assert export(warm, run)["difference"] <= 1e-6


def test_resizing_in_exported_model(warm: Warm, test_split, tmp_path: Path):
    """The exported model resizes images of any size to the network's input size."""
    options = "--model=logistic", "--image_size=5,9", "--epochs=3", "--learning_rate=0.05"
    run = warm.train(tmp_path / "run", *options)
    facts = export(warm, run)
    assert facts["images"] == [None, None, 1] and facts["image_shape"] == [5, 9, 1]
    assert facts["tflite"]["images"] == [1, 5, 9, 1] and facts["tflite"]["difference"] <= 1e-5
    images, labels = test_split
    found = served(run.run_dir / "export", images, tmp_path)
    assert (found["classes"] == labels).sum() == round(run.result["test"]["accuracy"] * 360)
    large = served(run.run_dir / "export", images.repeat(3, 1).repeat(3, 2)[:9], tmp_path)
    assert large["probabilities"].shape == (9, 10)
