"""Tests of `--recompute` on the command line: kill and resume, names, inspection, verification."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.choices import seldom
from tests.cli.command import HANG, Warm, await_rows
from tests.sameness import differences

NETWORK = ("--model=mlp", "--hidden=64,64", "--global_batch_size=16", "--recompute=layers/*")


def test_kill_then_resume(warm: Warm, tmp_path: Path):
    """A run that recomputes ends with the same bits after a kill; another value is refused."""
    options = [*NETWORK, "--epochs=4", "--log_every=5", "--checkpoint_every=30"]
    whole = warm.train(tmp_path / "whole", *options)
    run_dir = tmp_path / "killed"
    with warm.started(f"--run_dir={run_dir}", *options) as process:
        await_rows(process, run_dir, 12)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=HANG)
    refused = warm.run(f"--run_dir={run_dir}", *options, "--recompute=layers/2")
    assert refused.status == 2 and "recompute" in refused.err, refused.said()
    resumed = warm.train(run_dir, *options)
    assert differences(resumed.run_dir, whole.run_dir) == []
    assert whole.result["traces"]["train"] == 1


def test_unknown_name(warm: Warm, tmp_path: Path):
    outcome = warm.run(f"--run_dir={tmp_path / 'run'}", *NETWORK[:-1], "--recompute=blocks/*")
    assert outcome.status == 2, outcome.said()
    (line,) = outcome.err.splitlines()
    assert re.match(r"error: --recompute=blocks/\*: no module .* layers/0, layers/1", line)
    assert not (tmp_path / "run").exists()


def test_inspection_shows_modules(warm: Warm, tmp_path: Path):
    page = f"--inspect_path={tmp_path / 'page.html'}"
    outcome = warm.run("--mode=inspect", page, *NETWORK, "--inspect_steps=2")
    assert "modules computed again in the backward pass" in outcome.out, outcome.said()


@pytest.mark.parametrize("options", [(), seldom(("--virtual_devices=2", "--accumulate=2"))])
def test_verify(warm: Warm, options: tuple[str, ...]):
    outcome = warm.run("--mode=verify", *NETWORK, *options)
    assert outcome.status == 0, outcome.said()
