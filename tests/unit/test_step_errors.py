"""Errors of failed steps, and the advice to rerun unless the first step failed."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from engine.checkpoint.manager import CheckpointManager
from engine.config import flags
from engine.runtime.errors import StepError
from engine.trainer.bad_steps import TooManyBadStepsError
from tapeline import command
from tests.harness import pictures, training


def test_failed_call_reports_step(monkeypatch: pytest.MonkeyPatch):
    trained = training(*pictures(16))

    def fails(*arguments: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    for step in (0, 1):
        with monkeypatch.context() as patched:
            patched.setattr(trained.loop, "_call", fails)
            with pytest.raises(StepError, match=f"training failed after step {step}: ") as failed:
                trained.loop.run(1)
        assert failed.value.step == step
        trained.take(1)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("mode", ["train", "verify"])
def test_advice_to_rerun(tmp_path: Path, saved: bool, mode: str):
    config = flags.parse([f"--run_dir={tmp_path}", f"--mode={mode}"])
    if saved:
        CheckpointManager(str(tmp_path), training(*pictures(16)).state, keep=2).save_and_wait()
    went_on = "run the same command to resume" in command._advice(config, StepError("failed", 7))
    assert went_on == (saved and mode == "train")
    assert ("run the same command" in command._advice(config, OSError("disk full"))) == went_on
    first = command._advice(config, StepError("failed", 0))
    assert "run the same command" not in first
    assert ("fix the cause" in first) == (mode == "train")
    assert command._advice(config, TooManyBadStepsError("says it itself")) == ""


@pytest.mark.parametrize("error", [OSError("cannot be read"), RuntimeError("no library")])
def test_error_before_the_options_are_known(monkeypatch, capsys, error: Exception):
    """An error of `--load` or of TensorFlow's import is one line, too."""

    def fails(arguments: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr(command.flags, "parse", fails)
    assert command.main([]) == 1
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_error_of_tensorflow_is_one_line(monkeypatch, capsys):
    """An error of TensorFlow that nothing converts ends a command with one line, too."""

    def fails(arguments: object, **settings: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\ntensor")

    monkeypatch.setattr(command.flags, "parse", fails)
    assert command.main([]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: TensorFlow failed: OOM")
