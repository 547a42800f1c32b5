"""Accumulated and sharded steps of a graph that takes more memory than TensorFlow counts with.

The order of a million windows is computed in the graph: 200 MiB and more for a moment.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.cli.command import Warm

OPTIONS = (
    *("--context=64", "--task=language_model", "--validation_split=0", "--test_split="),
    *("--model=transformer", "--model.layers=1", "--model.heads=2", "--model.width=16"),
    *("--jit=off", "--report=false", "--global_batch_size=12", "--train_steps=3", "--clip_norm=1"),
)


def test_accumulated_and_sharded_steps_of_a_large_graph(warm: Warm, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_bytes(np.random.default_rng(0).integers(97, 123, 1_100_000, np.uint8).tobytes())

    def weights(name: str, *options: str) -> str:
        given = f"--dataset=text:{text}", f"--run_dir={tmp_path / name}"
        outcome = warm.run(*OPTIONS, *given, *options)
        assert outcome.status == 0, outcome.said()
        return json.loads((tmp_path / name / "result.json").read_text())["weights_sha256"]

    weights("accumulated", "--accumulate=2")
    one = weights("one", "--shards=2", "--virtual_devices=1")
    assert one == weights("two", "--shards=2", "--virtual_devices=2")
