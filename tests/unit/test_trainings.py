"""Tests of the files that benchmarks of whole trainings keep."""

from __future__ import annotations

import os

import pytest

from benchmarks import trainings


def test_killed_while_a_run_is_kept(tmp_path, monkeypatch):
    """Lines are added whole, or not at all."""
    path = tmp_path / "runs.jsonl"
    trainings.keep(path, {"seed": 0})
    trainings.keep(path, {"seed": 1})
    assert path.read_text() == '{"seed": 0}\n{"seed": 1}\n'

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        trainings.keep(path, {"seed": 2})
    assert path.read_text() == '{"seed": 0}\n{"seed": 1}\n'
