"""Compares the result of --mode=tune with an exhaustive grid search and writes TUNING.md.

    python -m benchmarks.tuning --data_dir=DATA_DIR [--workloads=W3,W4]

For each workload: tunes once, then measures every candidate of the grid, a few processes at a time,
each together with the tuned candidate. The four fastest of the grid and the default are measured
again together with the tuned candidate, over four starts of all processes, because the maximum of
many noisy measurements is biased, and the speed of a process depends on its memory layout. A
workload takes 15 minutes; workloads that are not selected keep their previous row. Run nothing else
at the same time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import rounds
from benchmarks.engine_loop import config_of
from benchmarks.workloads import WORKLOADS
from engine.config import flags
from engine.config.schema import Config
from engine.tune import choices
from engine.tune.choices import Candidate
from engine.tune.contest import ROUNDS, contest
from pipelines import usable_cores

TOGETHER = 6  # processes at a time
AGAIN = 4  # number of the fastest of the grid that are measured again
STARTS = 4  # of each of those


def grid(cores: int) -> list[Candidate]:
    """Returns all candidates of the grid for a number of CPU cores."""
    combinations = itertools.product(
        choices.JITS,
        choices.FEEDS,
        sorted({1, max(1, cores // 2), cores}),
        (0, 1),
        ("auto", "32", "1024"),
    )
    return [Candidate(*combination) for combination in combinations]


def tuned(config: Config, scratch: str) -> tuple[Candidate, float]:
    """Runs `--mode=tune`; returns the tuned candidate and the seconds of the tuning.

    Args:
      config: the training run to tune.
      scratch: directory for the files of options.

    Raises:
      subprocess.CalledProcessError: if tuning fails.
    """
    path = Path(scratch) / "tuned.flags"
    options = Path(scratch) / "options.flags"
    options.write_text(flags.flagfile(config))
    command = [sys.executable, "run.py", f"--flagfile={options}", "--mode=tune"]
    started = time.perf_counter()
    subprocess.run(
        [*command, f"--tuned_flags={path}", "--progress=off"],
        cwd=rounds.HERE.parent,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - started
    found = flags.parse([f"--flagfile={path}"])
    candidate = Candidate(
        found.loop.jit,
        found.data.feed,
        found.devices.intra_op_threads,
        found.devices.inter_op_threads,
        found.loop.steps_per_loop,
    )
    return candidate, seconds


def against_grid(config: Config, chosen: Candidate) -> dict[str, Any]:
    """Measures the default and all candidates of the grid, together with the tuned candidate.

    Args:
      config: the training run.
      chosen: the tuned candidate.

    Returns:
      Entries of tuning.json. "grid": for each candidate, the speedup over the tuned one. "again":
      for the `AGAIN` fastest candidates of the grid, and the default, the speedups in `STARTS` new
      starts. "fastest": the one of these `AGAIN` with the largest median of its new speedups;
      "fastest_over_tuned": that median; "fastest_over_tuned_by_start": the speedups themselves.
      "default_over_tuned": the median of the default's new speedups; 1 if the default is the tuned
      candidate. "tuned_steps_per_second": the tuned candidate's median over the new starts.
    """
    others = [Candidate(), *grid(usable_cores())]
    others = [choice for choice in others if choice != chosen]
    ratios: dict[Candidate, float] = {}
    for first in range(0, len(others), TOGETHER - 1):
        some = others[first : first + TOGETHER - 1]
        found = contest(config, chosen, lambda _, some=some: some, lambda: None)
        for choice in some:
            ratios[choice] = found.ratios[choice]
        done = min(len(others), first + TOGETHER - 1)
        most = max(ratios, key=ratios.__getitem__)
        print(f"  {done} of {len(others)}: at best x{ratios[most]:.3f}, {most}", flush=True)
    several = sorted(ratios, key=ratios.__getitem__, reverse=True)[:AGAIN]
    again = list(dict.fromkeys([*several, *({Candidate()} - {chosen})]))
    starts = [contest(config, chosen, lambda _: again, lambda: None) for _ in range(STARTS)]
    over_tuned = {
        choice: statistics.median(found.ratios[choice] for found in starts) for choice in again
    }
    fastest = max(several, key=over_tuned.__getitem__)
    return {
        "grid": {str(choice): ratio for choice, ratio in ratios.items()},
        "again": {str(choice): [found.ratios[choice] for found in starts] for choice in again},
        "fastest": str(fastest),
        "fastest_over_tuned": over_tuned[fastest],
        "fastest_over_tuned_by_start": [found.ratios[fastest] for found in starts],
        "default_over_tuned": over_tuned.get(Candidate(), 1.0),
        "tuned_steps_per_second": statistics.median(found.rates[chosen] for found in starts),
    }


def rows(results: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of TUNING.md's table, a row for each workload, and of the note below."""
    yield (
        "| | tuned in, s | tuned | steps/s | the grid's fastest, again, over it | starts | "
        "default over it | the grid's fastest |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name, found in results["workloads"].items():
        starts = len(found.get("fastest_over_tuned_by_start", [1]))
        yield (
            f"| {name} | {found['seconds']:.0f} | {found['tuned']} | "
            f"{found['tuned_steps_per_second']:,.0f} | {found['fastest_over_tuned']:.3f} | "
            f"{starts} | {found['default_over_tuned']:.3f} | {found['fastest']} |"
        )
    yield ""
    yield (
        "A fastest of the grid that comes out far below 1 when it is measured again was luck: then "
        "the row does not tell how near to the fastest the tuned choice is."
    )


def main() -> int:
    """Runs the benchmark, writes tuning.json and TUNING.md, and returns 0."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--data_dir", required=True, help="where MNIST is prepared")
    made.add_argument("--workloads", default=",".join(WORKLOADS))
    made.add_argument("--out", type=Path, default=rounds.HERE, help="where the results go")
    args = made.parse_args()
    args.rounds = ROUNDS
    results = rounds.begun("tuning", "tuning.json", args)
    raw = args.out / results["raw"]
    before = json.loads(raw.read_text())["workloads"] if raw.exists() else {}
    for name in args.workloads.split(","):
        print(f"{name}: {WORKLOADS[name].what}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            config = config_of(WORKLOADS[name], args.data_dir, f"{scratch}/run")
            chosen, seconds = tuned(config, scratch)
            print(f"  tuned in {seconds:.0f} s: {chosen}", flush=True)
            found = against_grid(config, chosen)
        dated = {"date": time.strftime("%Y-%m-%d"), "tuned": str(chosen), "seconds": seconds}
        before[name] = dated | found
        results["workloads"] = {each: before[each] for each in WORKLOADS if each in before}
        lines = [*rounds.heading("Tuning", results), "", *rows(results)]
        rounds.write(args.out, results, "TUNING.md", lines)
    print("\n".join(lines[8:]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
