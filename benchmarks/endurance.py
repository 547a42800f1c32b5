"""Whether a step costs the same after many: 200,000 steps of W3, tenth by tenth.

    python -m benchmarks.endurance --data_dir=DATA_DIR

Trains several times, each a process of its own with metrics, curves and checkpoints as in any run.
What is compared is the rate of the last tenth with that of the first, of which the steps that trace
and compile are left out; the median over the runs, because the machine itself drifts. The exit
status is 1 where it is not within 2%, or the graph was traced more than once. Run nothing beside
it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rounds
from benchmarks.workloads import WORKLOADS

STEPS, TENTHS = 200_000, 10
WITHIN = 0.02
_WARM = 2_000  # steps before the first tenth


def one(data_dir: str, steps: int) -> None:
    """Trains; prints JSON: seconds of each tenth, and how often the graph was traced."""
    from engine.startup import import_tensorflow

    import_tensorflow()
    import time

    from benchmarks.engine_loop import config_of
    from engine.assembly import assemble
    from engine.keeping.lock import RunLock
    from engine.keeping.signals import Signals
    from engine.trainer import Trainer
    from engine.workers.crew import Crew

    with tempfile.TemporaryDirectory() as run_dir:
        config = config_of(WORKLOADS["W3"], data_dir, run_dir)
        with RunLock(run_dir, taken=True) as lock, Signals() as signals:
            parts = assemble(config)
            trainer = Trainer(parts, signals, time.monotonic(), Crew())
            trainer.start(lock)
            trainer.train(until=_WARM)
            seconds = []
            for tenth in range(1, TENTHS + 1):
                started = time.perf_counter()
                trainer.train(until=_WARM + tenth * steps // TENTHS)
                seconds.append(time.perf_counter() - started)
            traces = parts.traces
            trainer.close()
    print(json.dumps({"seconds": seconds, "traces": traces}))


def main() -> int:
    """Runs it."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--data_dir", required=True, help="where MNIST is prepared")
    made.add_argument("--runs", type=int, default=7, dest="rounds")
    made.add_argument("--steps", type=int, default=STEPS)
    made.add_argument("--out", type=Path, default=rounds.HERE, help="where the results go")
    made.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.one:
        one(args.data_dir, args.steps)
        return 0
    results = rounds.begun("endurance", "endurance.json", args) | {"runs": []}
    runs: list[dict[str, Any]] = results["runs"]
    command = [sys.executable, "-m", "benchmarks.endurance", f"--data_dir={args.data_dir}", "--one"]
    for number in range(1, args.rounds + 1):
        done = subprocess.run(
            [*command, f"--steps={args.steps}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        seconds = runs[-1]["seconds"]
        print(f"  run {number}: last over first tenth {seconds[0] / seconds[-1]:.3f}", flush=True)
    tenths = np.median([args.steps / TENTHS / np.array(run["seconds"]) for run in runs], axis=0)
    ratio = float(np.median([run["seconds"][0] / run["seconds"][-1] for run in runs]))
    traces = {count for run in runs for count in run["traces"].values()}
    lines = [
        *rounds.heading("Endurance", results),
        "",
        f"W3, {WORKLOADS['W3'].what}: {args.steps:,} steps, tenth by tenth, in steps a second:",
        "",
        "| " + " | ".join(map(str, range(1, TENTHS + 1))) + " |",
        "|" + "---|" * TENTHS,
        "| " + " | ".join(f"{rate:,.0f}" for rate in tenths) + " |",
        "",
        f"The last tenth over the first: {ratio:.3f}. Each compiled function was traced "
        f"{' or '.join(map(str, sorted(traces)))} time.",
    ]
    rounds.write(args.out, results, "ENDURANCE.md", lines)
    print("\n".join(lines[8:]), flush=True)
    return 0 if abs(ratio - 1) <= WITHIN and traces == {1} else 1


if __name__ == "__main__":
    sys.exit(main())
