"""Measures the time from SIGTERM to the exit of a run that saves a checkpoint first.

    python -m tests.chaos.latency --tries=50 --flagfile=cpu.flags --data_dir=...

Half of the tries are during training and half during an evaluation. Prints p50, p95 and the
maximum. Other options are passed to the command. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[2]
# (module, class, earliest, latest): seconds from the first call of its `run` to the signal.
AIMS = {
    "training": ("engine.core.loop", "Loop", 1.0, 4.0),
    "evaluation": ("engine.core.evaluation", "Evaluation", 0.0, 0.4),
}
_ONE_EPOCH = "--train_steps=60"  # a short run reaches its evaluation soon


def main() -> int:
    """Measures and prints the times; returns 1 if a run did not save and exit with 143, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.latency", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default 0)")
    asked, arguments = parser.parse_known_args()
    random = np.random.default_rng(asked.seed)
    taken: dict[str, list[float]] = {where: [] for where in AIMS}
    for number in range(asked.tries):
        where = list(AIMS)[number % len(AIMS)]
        with tempfile.TemporaryDirectory() as place:
            at = Path(place) / "at"
            own = [where, str(random.uniform(*AIMS[where][2:])), str(at), f"--run_dir={place}/run"]
            if where == "evaluation":
                own += [_ONE_EPOCH]
            ran = subprocess.run(
                [sys.executable, "-m", "tests.chaos.latency", "AIMED", *own, *arguments],
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
            )
            ended = time.monotonic()
            if ran.returncode != 143 or "; run the same command to" not in ran.stdout:
                print(f"{where}: exit status {ran.returncode}: {ran.stdout[-300:]}{ran.stderr}")
                return 1
            taken[where].append(ended - float(at.read_text()))
    for where, found in {**taken, "all": [s for each in taken.values() for s in each]}.items():
        p50, p95 = np.percentile(found, [50, 95])
        print(
            f"{where}: {len(found)} tries, p50 {p50:.2f} s, p95 {p95:.2f} s, max {max(found):.2f}"
        )
    return 0


def aimed(where: str, delay: str, at: str, *arguments: str) -> None:
    """Runs the command in this process, which sends itself SIGTERM at a chosen time.

    Args:
      where: key of `AIMS`; the delay starts at the first call of `run` of its class.
      delay: seconds from this call to the signal.
      at: path of the file to which the time of the signal is written.
      *arguments: arguments of the command.
    """
    from engine.runtime.startup import import_tensorflow

    import_tensorflow()
    import importlib

    module, owner, *_ = AIMS[where]
    target = getattr(importlib.import_module(module), owner)
    function, timers = target.run, []

    def send() -> None:
        Path(at).write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGTERM)

    def entered(*given: object, **named: object) -> object:
        if not timers:
            timers.append(threading.Timer(float(delay), send))
            timers[0].daemon = True
            timers[0].start()
        return function(*given, **named)

    target.run = entered
    sys.argv = ["run.py", *arguments]
    from tapeline import cli

    cli.entry()


if __name__ == "__main__":
    if sys.argv[1:2] == ["AIMED"]:
        aimed(*sys.argv[2:])
    else:
        sys.exit(main())
