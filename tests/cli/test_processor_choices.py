"""What is chosen by the processor, in new processes that are held to AVX2."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import Command, Warm

HELD = {"ONEDNN_MAX_CPU_ISA": "AVX2", "TF_ENABLE_ONEDNN_OPTS": ""}
SHORT = ("--global_batch_size=64", "--validation_split=0", "--test_split=", "--progress=off")
MODEL = """
import tensorflow as tf
import tapeline as tl

@tl.model
def mine(outputs):
    return [tl.models.Flatten(), tl.models.Dense(outputs.shape[-1])]
"""


def test_precision_and_onednn_are_kept(command: Command, warm: Warm, tmp_path: Path):
    """`auto` of a run that began on AVX2 stays what it was, on a processor that chooses others."""
    run_dir, options = tmp_path / "run", (*SHORT, "--model=mlp", "--precision=auto")
    first = command.run(f"--run_dir={run_dir}", *options, "--train_steps=3", **HELD)
    assert first.status == 0 and not first.err, first.said()
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["precision"], result["onednn"]) == ("float32", "off")
    assert {"--precision=float32", "--onednn=off"} <= set(
        (run_dir / "config.flags").read_text().splitlines()
    )
    # Neither the resume nor the repetition of the command is refused.
    free = {"ONEDNN_MAX_CPU_ISA": "DEFAULT", "TF_ENABLE_ONEDNN_OPTS": ""}
    longer = command.run(f"--run_dir={run_dir}", *options, "--train_steps=5", **free)
    assert longer.status == 0 and "resumed at step 3" in longer.out, longer.said()
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["step"], result["precision"], result["onednn"]) == (5, "float32", "off")
    again = warm.run(f"--run_dir={run_dir}", *options, "--train_steps=5")
    assert again.status == 0 and "already complete" in again.out


def test_bfloat16_is_kept_where_it_is_emulated(command: Command, tmp_path: Path):
    """A run in bfloat16 stays so where `auto` would choose float32, and says its cost."""
    run_dir, options = tmp_path / "run", (*SHORT, "--model=mlp")
    free = {"ONEDNN_MAX_CPU_ISA": "DEFAULT", "TF_ENABLE_ONEDNN_OPTS": ""}
    begun = ("--precision=mixed_bfloat16", "--onednn=off", "--train_steps=3")
    first = command.run(f"--run_dir={run_dir}", *options, *begun, **free)
    assert first.status == 0 and not first.err, first.said()
    longer = ("--precision=auto", "--train_steps=5")
    second = command.run(f"--run_dir={run_dir}", *options, *longer, **HELD)
    assert second.status == 0 and not second.err, second.said()
    assert "resumed at step 3" in second.out, second.said()
    assert second.out.count("mixed_bfloat16 is emulated") == 1, second.said()
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["step"], result["precision"]) == (5, "mixed_bfloat16")
    assert result["onednn"] == "off" and result["emulated"].startswith("mixed_bfloat16 is emulated")


def test_emulation_is_said(command: Command, tmp_path: Path):
    """oneDNN is chosen before a file of --load imports TensorFlow."""
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    run_dir, options = tmp_path / "run", (*SHORT, f"--load={path}", "--model=mine")
    precision = ("--precision=mixed_bfloat16", "--onednn=off", "--train_steps=2")
    outcome = command.run(f"--run_dir={run_dir}", *options, *precision, **HELD)
    assert outcome.status == 0 and not outcome.err, outcome.said()
    assert outcome.out.count("mixed_bfloat16 is emulated") == 1
    result = json.loads((run_dir / "result.json").read_text())
    assert result["onednn"] == "off" and result["emulated"].startswith("mixed_bfloat16 is emulated")
