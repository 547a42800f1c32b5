"""What is said after a failed step: the same command helps only where it was not the first."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

import run
from engine import flags
from engine.failure import StepError
from engine.keeping.checkpoints import Checkpoints
from engine.training.guard import GuardError
from tests.harness import pictures, training


def test_a_failed_call_says_how_many_steps_came_before(monkeypatch: pytest.MonkeyPatch):
    trained = training(*pictures(16))

    def fails(*arguments: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    for step in (0, 1):
        with monkeypatch.context() as patched:
            patched.setattr(trained.loop, "_compiled", fails)
            with pytest.raises(StepError, match=f"training failed after step {step}: ") as failed:
                trained.loop.run(1)
        assert failed.value.step == step
        trained.take(1)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("mode", ["train", "verify"])
def test_to_run_the_same_command_is_advised_only_where_it_helps(
    tmp_path: Path, saved: bool, mode: str
):
    config = flags.parse([f"--run_dir={tmp_path}", f"--mode={mode}"])
    if saved:
        Checkpoints(str(tmp_path), training(*pictures(16)).state, keep=2).save_now()
    went_on = "run the same command to go on" in run._way_on(config, StepError("failed", 7))
    assert went_on == (saved and mode == "train")
    assert ("run the same command" in run._way_on(config, OSError("disk full"))) == went_on
    first = run._way_on(config, StepError("failed", 0))
    assert "run the same command" not in first
    assert ("change what caused it" in first) == (mode == "train")
    assert run._way_on(config, GuardError("says it itself")) == ""
