"""Measures the time from the launch to the end of the first step, by parts of the startup.

    python -m benchmarks.startup --data_dir=DATA_DIR

Trains one step of each workload several times, in turn, with `python run.py`: once with an empty
cache, so that the data is decoded first, and once with the cache of decoded data. For comparison,
also measures a Python process that only imports TensorFlow. Prints medians. Run nothing else at the
same time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rounds
from benchmarks.engine_loop import config_of
from benchmarks.workloads import WORKLOADS
from engine.config import flags

IMPORT = "import tensorflow"


def started(name: str, data_dir: str, scratch: Path, cache: Path) -> dict[str, float]:
    """Trains a workload for one step with run.py; returns the seconds of each startup part.

    Args:
      name: name of the workload.
      data_dir: directory in which MNIST is prepared.
      scratch: directory for the options file and the run.
      cache: directory of decoded data.

    Raises:
      subprocess.CalledProcessError: if run.py fails.
    """
    run_dir = scratch / "run"
    config = config_of(WORKLOADS[name], data_dir, str(run_dir), f"--cache_dir={cache}")
    options = scratch / "options.flags"
    options.write_text(flags.flagfile(config))
    command = [sys.executable, "run.py", f"--flagfile={options}", "--train_steps=1"]
    _run([*command, "--progress=off", "--report=false"])
    return json.loads((run_dir / "result.json").read_text())["startup_seconds"]


def imported() -> dict[str, float]:
    """Runs a Python process that only imports TensorFlow; returns a dict of its seconds.

    The key is `IMPORT`.

    Raises:
      subprocess.CalledProcessError: if the process fails.
    """
    begun = time.perf_counter()
    _run([sys.executable, "-c", IMPORT])
    return {IMPORT: time.perf_counter() - begun}


def _run(command: list[str]) -> None:
    quiet = subprocess.DEVNULL
    subprocess.run(command, cwd=rounds.HERE.parent, check=True, stdout=quiet, stderr=quiet)


def table(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Returns the lines of a table with the median seconds of each startup part and of the sum.

    Args:
      found: for each row, by name, the seconds of each startup part in each start.
    """
    parts = list(next(iter(found.values()))[0])
    lines = ["| seconds | " + " | ".join(parts) + " | together |", "|---" * (len(parts) + 2) + "|"]
    for name, starts in found.items():
        medians = [np.median([each.get(part, 0.0) for each in starts]) for part in parts]
        whole = np.median([sum(each.values()) for each in starts])
        cells = [f"{seconds:.2f}" if seconds else "" for seconds in (*medians, whole)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    """Runs the benchmark, writes startup.json and STARTUP.md, prints the table and returns 0."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--data_dir", required=True, help="where MNIST is prepared")
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--out", type=Path, default=rounds.HERE, help="where the results go")
    args = made.parse_args()
    results = rounds.begun("startup", "startup.json", args, "rounds")
    starts: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as kept:
        for number in range(1, args.rounds + 1):
            for name in WORKLOADS:
                with tempfile.TemporaryDirectory() as scratch:
                    place = Path(scratch)
                    first = started(name, args.data_dir, place, place / "cache")
                with tempfile.TemporaryDirectory() as scratch:
                    again = started(name, args.data_dir, Path(scratch), Path(kept))
                starts.setdefault(f"{name}, first", []).append(first)
                if number > 1:  # the first round filled the cache
                    starts.setdefault(name, []).append(again)
            starts.setdefault(f"`{IMPORT}` alone", []).append(imported())
            print(f"  round {number} of {args.rounds}", flush=True)
    results["starts"] = starts
    lines = [
        *rounds.heading("Startup", results),
        "",
        "From the launch to the end of the first step. `first`: with an empty cache.",
        "",
        *table(starts),
    ]
    rounds.write(args.out, results, "STARTUP.md", lines)
    print("\n".join(lines[8:]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
