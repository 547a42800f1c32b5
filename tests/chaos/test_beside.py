"""Runs two modes, once each, during a training; `tests.chaos.beside` runs all modes many times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_modes_beside_training():
    reading = "evaluate,predict files"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos.beside", "--times=1", "--epochs=20", "--only", reading],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert "0 problems beside" in ran.stdout.splitlines()[-1]
