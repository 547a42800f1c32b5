"""Tests that a task needs no code of other tasks, and a source no code of other sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import HANG, REPOSITORY
from tests.examples.jobs import EXAMPLES

REMOVED = (
    "engine/tasks/classification.py",
    "engine/tasks/multi_label.py",
    "engine/tasks/segmentation.py",
    "pipelines/sources/folder.py",
    "pipelines/sources/tfds.py",
    "pipelines/sources/digits.py",
)
OPTIONS = (
    *("--dataset=diabetes", "--task=regression", "--model=mlp", "--hidden=4", "--epochs=2"),
    *("--scale=standardize", "--metrics=mean_absolute_error,r2", "--jit=off", "--progress=off"),
)
PROGRAM = """
import sys
import tapeline as tl
run = ["--load=own.py", "--run_dir=run"]
for mode in ("verify", "train", "evaluate", "export", "report"):  # verify makes devices: first
    assert tl.main([*run, *sys.argv[1:], "--mode=" + mode]) == 0, mode
assert tl.main([*run, "--mode=predict", "--inputs=rows.npy"]) == 0
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Returns a folder with the code except `REMOVED`, the regression example, and three inputs."""
    for package in ("engine", "pipelines", "tapeline"):
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    for name in REMOVED:
        (tmp_path / name).unlink()
    shutil.copy(EXAMPLES / "regression.py", tmp_path / "own.py")
    np.save(tmp_path / "rows.npy", np.zeros([3, 10], np.float32))
    return tmp_path


def test_regression_without_classification(copied: Path):
    """Regression works in six modes without the code of other tasks, image folders and TFDS."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *OPTIONS],
        cwd=copied,
        env={**os.environ, "PYTHONPATH": str(copied)},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: 8 laws hold" in done.stdout
    run = copied / "run"
    result = json.loads((run / "result.json").read_text())
    assert set(result["test"]) == {"loss", "mean_absolute_error", "r2", "examples"}
    predicted = json.loads((run / "predictions" / "predictions.json").read_text())
    assert len(predicted["predictions"]) == 3 and predicted["errors"] == []
    assert (run / "report.html").exists() and (run / "export" / "saved_model.pb").exists()
