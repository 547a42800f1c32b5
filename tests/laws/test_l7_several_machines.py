"""Tests of laws L2 and L7 across processes: two local workers train as one process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.tasks.classification import Classification
from engine.verify.fault_injection import FaultInjectingTask
from engine.verify.trajectory import weights
from tests.choices import seldom
from tests.harness import tf_configs
from tests.laws.product import STEPS, assembled, poisoned_steps

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "model": "law_norm",
    "train_split": "train[:77]",
    "global_batch_size": 18,
    "clip_norm": 0.5,
    "ema": 0.9,
    "augment": "shift:1,mixup:0.3",
    "validation_split": "0",
    "test_split": "",
    "progress": "off",
}
# Step -> row. Row 17 is the last of a full batch, on worker 1.
POISONED = {3: 17, 11: 0}


def two_workers(place: Path, cache: Path, options: dict) -> list[dict[str, np.ndarray]]:
    """Trains on two worker processes; returns the arrays that each worker saved, by name."""
    running = []
    for task, config in enumerate(tf_configs(2)):
        given = {**options, "cache_dir": str(cache), "run_dir": str(place / "run")}
        command = [sys.executable, "-m", "tests.laws.worker", json.dumps(given)]
        running.append(
            subprocess.Popen(
                [*command, str(place / f"{task}.npz")],
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": config},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        for worker in running:
            output, _ = worker.communicate(timeout=300)
            assert worker.returncode == 0, output[-3000:]
    finally:
        for worker in running:
            worker.kill()
            worker.communicate()
    return [dict(np.load(place / f"{task}.npz")) for task in range(2)]


@pytest.mark.parametrize(
    ("shards", "accumulate", "feed"),
    [seldom(0, 1, "resident"), (0, 1, "stream"), seldom(2, 1, "stream"), (2, 4, "resident")],
)
def test_two_workers_match_one(tmp_path, shards, accumulate, feed):
    """The weights of two workers match those of one process, bitwise with shards."""
    options = {**OPTIONS, "shards": shards, "accumulate": accumulate, "feed": feed}
    first, second = two_workers(tmp_path, tmp_path / "cache", {**options, "poisoned": POISONED})
    task = FaultInjectingTask(Classification())
    alone = assembled(str(tmp_path), task=task, **options)
    poisoned_steps(alone, task, POISONED, STEPS)
    assert first["counts"].tolist() == second["counts"].tolist() == [STEPS, STEPS - len(POISONED)]
    for name, value in weights(alone).items():
        assert first[name].tobytes() == second[name].tobytes(), name
        if shards:
            assert first[name].tobytes() == value.tobytes(), name
        else:
            assert np.linalg.norm(first[name] - value) <= 1e-5 * np.linalg.norm(value), name
    if shards:
        assert first["sums"].tobytes() == alone.state.sums.numpy().tobytes()
    alone.close()
