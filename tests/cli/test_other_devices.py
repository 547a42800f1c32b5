"""Tests that a sharded run, interrupted and resumed on other devices, ends bitwise equal."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.command import HANG, LONG, Warm, await_rows, rows_of
from tests.sameness import differences

SHARDED = (*LONG, "--shards=4", "--ema=0.9")
ON = {1: "--strategy=cpu", 2: "--virtual_devices=2", 4: "--virtual_devices=4"}


@pytest.mark.full
def test_resume_on_other_devices(warm: Warm, tmp_path: Path):
    run_dir, whole = tmp_path / "run", tmp_path / "whole"
    warm.train(whole, *SHARDED, ON[1])
    for devices in (1, 2, 4):
        before = len(rows_of(run_dir))
        with warm.started(f"--run_dir={run_dir}", *SHARDED, ON[devices]) as process:
            await_rows(process, run_dir, before + 6)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=HANG)
        assert (process.returncode, err) == (143, ""), out
    resumed = warm.train(run_dir, *SHARDED, ON[1])
    assert resumed.result["restarts"] == 3
    assert differences(whole, run_dir) == []
