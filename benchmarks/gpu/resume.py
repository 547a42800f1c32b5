"""Trains gpu.flags, and again with a SIGKILL and a resume; compares the weights by their SHA-256.

    python -m benchmarks.gpu.resume DIR [--OPTION=VALUE ...]

The runs are made in DIR, with further options of `run.py`. The second run is killed when it has
logged half of the steps, and a checkpoint has been written. Prints a line of JSON after each run;
the exit status is 1 if a run fails or the weights differ.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.timing import tell

ROOT = Path(__file__).parents[2]
_POLL_SECONDS = 0.01


def command(run_dir: Path, options: list[str]) -> list[str]:
    """Returns the command line of a run of gpu.flags."""
    quiet = ["--progress=off", "--report=false"]
    flags = ["--flagfile=gpu.flags", f"--run_dir={run_dir}", *quiet, *options]
    return [sys.executable, str(ROOT / "run.py"), *flags]


def result_of(run_dir: Path) -> dict[str, Any]:
    """Returns the content of a run's result.json."""
    return json.loads((run_dir / "result.json").read_text())


def last_step(run_dir: Path) -> int:
    """Returns the last step in a run's metrics.jsonl; 0 if there is none."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    whole = [line for line in lines if line.endswith("}")]
    return json.loads(whole[-1])["step"] if whole else 0


def killed(run_dir: Path, options: list[str], step: int) -> int:
    """Starts a run and kills it after `step`; returns the last step that it has logged.

    Raises:
      RuntimeError: if the run ends before that.
    """
    with subprocess.Popen(command(run_dir, options), stdout=sys.stderr, cwd=ROOT) as process:
        while last_step(run_dir) < step or not list(run_dir.glob("checkpoints/ckpt-*.npz")):
            if process.poll() is not None:
                raise RuntimeError(f"the run ended with status {process.returncode}, not killed")
            time.sleep(_POLL_SECONDS)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if (run_dir / "result.json").exists():
        raise RuntimeError("the run was done before it could be killed")
    return last_step(run_dir)


def main() -> int:
    """Trains the runs and prints lines of JSON; returns 0 if the weights are the same, else 1."""
    place, options = Path(sys.argv[1]), sys.argv[2:]
    started = time.perf_counter()
    whole, other = place / "whole", place / "killed"
    for run_dir in (whole, other):
        shutil.rmtree(run_dir, ignore_errors=True)  # of an earlier start, which was cut off
    subprocess.run(command(whole, options), check=True, stdout=sys.stderr, cwd=ROOT)
    result = result_of(whole)
    figures: dict[str, Any] = {
        "seconds_of_the_command": time.perf_counter() - started,
        "options": options,
        **{name: result.get(name) for name in ("step", "train_seconds", "steps_per_second")},
        "test": result.get("test"),
        "validation": result.get("validation"),
        "skipped_steps": result.get("skipped_steps"),
        "weights_sha256": result["weights_sha256"],
    }
    tell(figures)
    figures["killed_after_step"] = killed(other, options, result["step"] // 2)
    tell(figures)
    subprocess.run(command(other, options), check=True, stdout=sys.stderr, cwd=ROOT)
    resumed = result_of(other)
    figures["restarts"] = resumed["restarts"]
    figures["resumed_weights_sha256"] = resumed["weights_sha256"]
    figures["same_bits"] = resumed["weights_sha256"] == result["weights_sha256"]
    tell(figures)
    if not figures["same_bits"]:
        print("the resumed run has other weights", file=sys.stderr)
    return 0 if figures["same_bits"] else 1


if __name__ == "__main__":
    sys.exit(main())
