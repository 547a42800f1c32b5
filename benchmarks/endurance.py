"""Measures whether throughput stays constant over 200,000 steps of workload W3.

    python -m benchmarks.endurance --data_dir=DATA_DIR

Trains with metrics, curves and checkpoints as in any run, one hundredth at a time, and in turn with
the hand-written loop (`bare.py`), which restarts before every tenth. The restarted loop cannot slow
down over time, and a change in the machine's speed affects both. The result is the throughput of
the last tenth over that of the first, each as a multiple of the bare loop's, as the median over
several trainings. The exit status is 1 if the result is not within 2% of 1. If a training traces
its graph more than once, the benchmark fails (`engine_loop.py`). Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rounds
from benchmarks.rounds import Answering
from benchmarks.workloads import WORKLOADS

STEPS, TENTHS, PIECES = 200_000, 10, 10  # PIECES: blocks of a tenth
WITHIN = 0.02
_WARM = 2_000  # warm-up steps of each process, which trace and compile


def trained(engine: list[str], bare: list[str], steps: int, errors: Any) -> dict[str, Any]:
    """Runs one training of the engine in turn with the bare loop.

    Args:
      engine: command line of the engine's process.
      bare: command line of the bare loop's process.
      steps: number of steps of the training.
      errors: file for the processes' standard error.

    Returns:
      Under "seconds", the seconds in which the engine trained each tenth of the steps; under
      "beside", the seconds of the bare loop for as many steps.

    Raises:
      RuntimeError: if a process fails.
    """
    piece = steps // TENTHS // PIECES
    seconds, beside = [], []
    measured = Answering(engine, errors)
    measured.take(_WARM)
    for tenth in range(1, TENTHS + 1):
        fresh = Answering(bare, errors)
        fresh.take(_WARM)
        measured.take(piece)  # warm-up: the process slept while the other started
        pairs = [(measured.take(piece), fresh.take(piece)) for _ in range(PIECES)]
        fresh.end()
        ours, theirs = np.sum(np.divide(piece, pairs), axis=0)
        seconds.append(ours)
        beside.append(theirs)
        print(f"  tenth {tenth} of {TENTHS}: {piece * PIECES / ours:,.0f} steps/s", flush=True)
    measured.end()
    return {"seconds": seconds, "beside": beside}


def main() -> int:
    """Runs the trainings and writes the table; returns 1 if the result is not within 2% of 1."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--data_dir", required=True, help="where MNIST is prepared")
    made.add_argument("--place", type=Path, default=Path(".benchmarks"), help="where the data is")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--steps", type=int, default=STEPS)
    made.add_argument("--out", type=Path, default=rounds.HERE, help="where the results go")
    args = made.parse_args()
    results = rounds.begun("endurance", "endurance.json", args, "rounds", "steps") | {"runs": []}
    runs: list[dict[str, Any]] = results["runs"]
    here = [sys.executable, "-m"]
    engine = [*here, "benchmarks.engine_loop", "W3", args.data_dir]
    bare = [*here, "benchmarks.bare", "W3", str(args.place / "mnist.npz"), "jit"]
    with tempfile.TemporaryFile() as errors:
        for number in range(1, args.rounds + 1):
            runs.append(trained(engine, bare, args.steps, errors))
            ratio = lasting(runs[-1])
            print(f"run {number} of {args.rounds}: last tenth over first {ratio:.3f}", flush=True)
    ratios = [lasting(run) for run in runs]
    ratio = float(np.median(ratios))
    lines = [*rounds.heading("Endurance", results), "", *table(runs, args.steps), ""]
    lines += [
        f"The last tenth over the first, both as multiples of the bare loop: {ratio:.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}). Each compiled function was traced once.",
    ]
    rounds.write(args.out, results, "ENDURANCE.md", lines)
    print("\n".join(lines[6:]), flush=True)
    return 0 if abs(ratio - 1) <= WITHIN else 1


def lasting(run: dict[str, Any]) -> float:
    """Returns the throughput of the last tenth over that of the first, relative to the bare loop.

    `run` is a result of `trained`.
    """
    multiples = np.divide(run["beside"], run["seconds"])
    return float(multiples[-1] / multiples[0])


def table(runs: list[dict[str, Any]], steps: int) -> list[str]:
    """Returns the lines of the table of throughput by tenth, with medians over the trainings.

    Args:
      runs: result of `trained` for each training.
      steps: number of steps of a training.
    """
    seconds = np.array([run["seconds"] for run in runs])
    multiples = np.median([np.divide(run["beside"], run["seconds"]) for run in runs], axis=0)
    rates = np.median(steps / TENTHS / seconds, axis=0)
    return [
        f"W3, {WORKLOADS['W3'].what}: {steps:,} steps, tenth by tenth.",
        "",
        "| | " + " | ".join(map(str, range(1, TENTHS + 1))) + " |",
        "|---" * (TENTHS + 1) + "|",
        "| steps/s | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |",
        "| over the bare loop | " + " | ".join(f"{many:.3f}" for many in multiples) + " |",
    ]


if __name__ == "__main__":
    sys.exit(main())
