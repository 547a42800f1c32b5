"""`--mode=tune` writes a flagfile that can be trained with."""

from __future__ import annotations

import pytest

from engine import flags
from engine.tune import choices, command, contest
from engine.tune.choices import Choice

OPTIONS = ("--mode=tune", "--model=logistic", "--progress=off")


def test_it_writes_the_fastest_with_all_that_was_measured(tmp_path, cache_dir, monkeypatch, capfd):
    monkeypatch.setattr(contest, "ROUNDS", 3)
    monkeypatch.setattr(choices, "first", lambda *_: [Choice(jit="off")])
    # What cannot be is told and not taken.
    monkeypatch.setattr(choices, "around", lambda *_: [Choice(jit="loop", feed="stream")])
    shards = "--shards=1"  # which XLA does not go with
    path = tmp_path / "tuned.flags"
    options = (*OPTIONS, shards, f"--tuned_flags={path}", f"--cache_dir={cache_dir}")
    assert command.run(flags.parse([*options, f"--run_dir={tmp_path / 'run'}"])) == 0
    out, err = capfd.readouterr()
    assert err == "" and f"written to {path}" in out
    text = path.read_text()
    assert "steps/s  x1.000  as it is" in text
    assert "--jit=loop --feed=stream: --jit=loop: other numbers of devices" in text
    tuned = flags.parse([f"--flagfile={path}"])
    assert tuned.training.jit in ("auto", "off") and tuned.data.feed == "auto"
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_trained_cannot_be_tuned(tmp_path):
    options = (*OPTIONS, f"--data_dir={tmp_path}", "--dataset=mnist")
    with pytest.raises(ValueError, match="mnist"):
        command.run(flags.parse([*options, f"--tuned_flags={tmp_path / 'tuned.flags'}"]))
    assert not (tmp_path / "tuned.flags").exists()
