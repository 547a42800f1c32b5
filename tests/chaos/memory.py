"""Measures whether memory grows in a long run that saves, evaluates and logs.

    python -m tests.chaos.memory --steps=100000

Prints the resident memory of the process at step 1,000, at the end and in between, in MiB. Other
options are passed to the command.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
OPTIONS = (
    *("--model=logistic", "--global_batch_size=32", "--log_every=100", "--ema=0.99"),
    "--report=false",
)


def main() -> int:
    """Measures and prints the memory; returns the exit status of the run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--steps", type=int, default=100_000)
    asked, arguments = parser.parse_known_args()
    marks = sorted({1000, asked.steps, *range(0, asked.steps, asked.steps // 5)} - {0})
    found: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as place:
        run_dir = Path(place) / "run"
        options = [*OPTIONS, f"--train_steps={asked.steps}", "--checkpoint_every=250", *arguments]
        process = subprocess.Popen(
            [sys.executable, "run.py", *options, f"--run_dir={run_dir}"],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None:
            step, resident = _step(run_dir), _resident(process.pid)
            due = [mark for mark in marks if mark <= step and mark not in found]
            if due and resident:
                found[due[-1]] = resident
                marks = [mark for mark in marks if mark > step]
                print(f"step {step:,}: {resident:.1f} MiB", flush=True)
            if resident:
                last = resident
            time.sleep(0.2)
    print(f"end: {last:.1f} MiB; grown since step 1,000: {last - min(found.values()):.1f} MiB")
    return process.returncode


def _step(run_dir: Path) -> int:
    try:
        return json.loads((run_dir / "clock.json").read_text())["step"]
    except (OSError, ValueError):
        return 0


def _resident(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
    except (OSError, StopIteration):
        return 0.0


if __name__ == "__main__":
    sys.exit(main())
