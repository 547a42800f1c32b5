"""Tests of `--mode=verify` on the built-in residual network, vision transformer and transformer."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.cli.command import Warm

TEXT = """
import numpy as np
import tapeline as tl

@tl.source
def ids():
    inputs = np.random.default_rng(0).integers(0, 11, (60, 8)).astype(np.uint8)
    return tl.arrays(inputs=inputs[:, :-1], targets=inputs[:, 1:], validation=0.2)
"""
DIGITS = "--dataset=digits", "--train_split=train[:80]"
NETWORKS = {
    "transformer": (
        *("--load=text.py", "--dataset=ids", "--task=language_model", "--classes=11"),
        *("--model=transformer", "--model.layers=1", "--model.heads=2"),
        *("--model.width=8", "--model.dropout=0.1"),
    ),
    "resnet": (*DIGITS, "--model=resnet"),
    "vit": (*DIGITS, "--model=vit", "--model.patch=4"),
    "airbench": (*DIGITS, "--model=airbench", "--model.widths=8,8"),
}
FACTORS = (
    (1, 2),
    ("float32", "mixed_bfloat16", "mixed_float16"),
    (1, 2),
    ("off", "step"),
)
USUAL = "transformer", (1, "float32", 1, "off")


@pytest.mark.parametrize(
    ("name", "point"),
    [
        pytest.param(name, point, marks=() if (name, point) == USUAL else pytest.mark.full)
        for name in NETWORKS
        for point in itertools.product(*FACTORS)
    ],
)
def test_verify_passes(warm: Warm, tmp_path: Path, name, point):
    (tmp_path / "text.py").write_text(TEXT)
    replicas, precision, accumulate, jit = point
    outcome = warm.run(
        *("--mode=verify", f"--run_dir={tmp_path / 'run'}", "--global_batch_size=16"),
        *(each.replace("text.py", str(tmp_path / "text.py")) for each in NETWORKS[name]),
        *(f"--virtual_devices={replicas}", f"--precision={precision}"),
        *(f"--accumulate={accumulate}", f"--jit={jit}"),
    )
    assert outcome.status == 0 and "PASS: " in outcome.out, outcome.said()
