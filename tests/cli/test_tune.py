"""Tests that `--mode=tune` writes a flagfile for training."""

from __future__ import annotations

import pytest

from engine.config import flags
from engine.tune import choices, command, contest
from engine.tune.choices import Candidate

OPTIONS = ("--mode=tune", "--model=logistic", "--progress=off")


def test_tuned_flagfile(tmp_path, cache_dir, monkeypatch, capfd):
    """The flagfile has the fastest options, and all measurements in comments."""
    monkeypatch.setattr(contest, "ROUNDS", 3)
    monkeypatch.setattr(choices, "first", lambda *_: [Candidate(jit="off")])
    # A candidate that cannot run is reported, not chosen.
    monkeypatch.setattr(choices, "around", lambda *_: [Candidate(jit="loop", feed="stream")])
    shards = "--shards=1"  # cannot be combined with a loop that XLA compiles
    path = tmp_path / "tuned.flags"
    options = (*OPTIONS, shards, f"--tuned_flags={path}", f"--cache_dir={cache_dir}")
    assert command.run(flags.parse([*options, f"--run_dir={tmp_path / 'run'}"])) == 0
    out, err = capfd.readouterr()
    assert err == "" and f"written to {path}" in out
    text = path.read_text()
    assert "steps/s  x1.000  as it is" in text
    assert "--jit=loop --feed=stream: --jit=loop: several devices cannot" in text
    tuned = flags.parse([f"--flagfile={path}"])
    assert tuned.loop.jit in ("auto", "off") and tuned.data.feed == "auto"
    assert not (tmp_path / "run").exists()


def test_missing_data(tmp_path):
    options = (*OPTIONS, f"--data_dir={tmp_path}", "--dataset=mnist")
    with pytest.raises(ValueError, match="mnist"):
        command.run(flags.parse([*options, f"--tuned_flags={tmp_path / 'tuned.flags'}"]))
    assert not (tmp_path / "tuned.flags").exists()
