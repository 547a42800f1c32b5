"""Lookahead by the command line: resumed to the same bits; its length is kept where it counts."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command import Warm

OPTIONS = ("--dataset=digits", "--model=mlp", "--hidden=16", "--lookahead=5", "--optimizer=sgd")


def test_resumed_to_the_same_bits(warm: Warm, tmp_path: Path):
    """Between two synchronisations; and the slow weights count."""
    whole = warm.train(tmp_path / "whole", *OPTIONS, "--train_steps=21")
    warm.train(tmp_path / "parts", *OPTIONS, "--train_steps=8")
    parts = warm.train(tmp_path / "parts", *OPTIONS, "--train_steps=21")
    assert parts.result["weights_sha256"] == whole.result["weights_sha256"]
    other = warm.train(tmp_path / "other", *OPTIONS, "--train_steps=21", "--lookahead_decay=0.6")
    assert other.result["weights_sha256"] != whole.result["weights_sha256"]


def test_another_length(warm: Warm, tmp_path: Path):
    rising = *OPTIONS, "--lookahead_power=3"
    warm.train(tmp_path / "run", *rising, "--train_steps=8")
    outcome = warm.run(f"--run_dir={tmp_path / 'run'}", *rising, "--train_steps=12")
    assert outcome.status == 2, outcome.said()
    assert "12 steps in all (was 8), on which --lookahead_power depends" in outcome.err
