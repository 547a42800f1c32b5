"""A run on a source of 3 billion examples keeps its bits when it is resumed on other devices."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command import Warm
from tests.sameness import differences

SOURCE = """
import numpy as np

import tapeline as tl


def read(number):
    values = np.full(8_000, number % 251, np.float32)
    values[: number % 97] = number % 13
    return values, number % 3


@tl.source
def huge():
    return tl.random_access(
        examples=3_000_000_000, read=read, class_names=3, version="1", validation=1e-7, test=1e-7
    )
"""


def test_resume_keeps_bits(warm: Warm, tmp_path: Path):
    (tmp_path / "huge.py").write_text(SOURCE)
    options = (
        f"--load={tmp_path / 'huge.py'}",
        "--dataset=huge",
        "--model=logistic",
        "--jit=off",
        "--shards=2",
        "--report=false",
    )
    alone = warm.train(tmp_path / "alone", *options, "--train_steps=7")
    for length in (("--train_steps=3",), ("--train_steps=7", "--virtual_devices=2")):
        cut = warm.train(tmp_path / "cut", *options, *length)
    assert cut.result["weights_sha256"] == alone.result["weights_sha256"]
    assert alone.result["test"]["examples"] == alone.result["validation"]["examples"] == 300
    assert cut.result["test"] == alone.result["test"]
    assert differences(alone.run_dir, cut.run_dir) == []
