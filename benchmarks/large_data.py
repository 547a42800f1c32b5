"""Measures the start of a large TFDS data set and the speed of streaming it, beside a small one.

    python -m benchmarks.large_data --data_dir=DATA_DIR

Makes two data sets in a temporary folder, whose shards are links to a shard of a prepared data set:
one of about `--gigabytes`, and one of a single shard. Measures, with an empty cache directory at
first: the first start of a run of each set, from the launch to the end of the first step; some more
starts in turn; and the rates at which one process streams both sets, in turn. Prints a table, and
JSON as the last line. The memory is the peak of a process that streams one of the sets, on Linux
only. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rounds

SMALL, LARGE = "one shard", "large"
MEMORY_BATCHES = 500


def linked(data_dir: Path, dataset: str, shards: int, place: Path) -> Path:
    """Makes a data set whose training split repeats a shard of a prepared one through links.

    Args:
      data_dir: directory in which the data set is prepared.
      dataset: name of a data set without configs.
      shards: number of links to the first shard of the training split.
      place: new directory, which becomes the `--data_dir` of the data set.

    Returns:
      `place`.

    Raises:
      OSError: if the data set is not prepared, or a file cannot be written.
    """
    prepared = max((data_dir / dataset).glob("*.*.*"))
    made = place / dataset / prepared.name
    made.mkdir(parents=True)
    info = json.loads((prepared / "dataset_info.json").read_text())
    (split,) = (each for each in info["splits"] if each["name"] == "train")
    count = len(split["shardLengths"])
    shard = prepared / f"{dataset}-train.tfrecord-00000-of-{count:05}"
    split["numBytes"] = str(int(split["numBytes"]) // count * shards)
    split["shardLengths"] = split["shardLengths"][:1] * shards
    info["splits"] = [split]
    (made / "dataset_info.json").write_text(json.dumps(info))
    for path in prepared.iterdir():
        if path.name == "features.json" or path.name.endswith(".labels.txt"):
            (made / path.name).write_bytes(path.read_bytes())
    for number in range(shards):
        link = made / f"{dataset}-train.tfrecord-{number:05}-of-{shards:05}"
        link.symlink_to(shard.resolve())
    return place


def started(data_dir: Path, dataset: str, cache: Path) -> float:
    """Trains a run of one step with run.py; returns the seconds from the launch to its end.

    A tenth of the set is the validation split, of which 1,000 examples are evaluated.

    Raises:
      subprocess.CalledProcessError: if run.py fails.
    """
    with tempfile.TemporaryDirectory() as run_dir:
        options = {
            "dataset": dataset,
            "data_dir": data_dir,
            "cache_dir": cache,
            "run_dir": run_dir,
            "feed": "stream",
            "model": "logistic",
            "train_steps": 1,
            "evaluation_examples": 1000,
            "test_split": "",
            "report": "false",
            "progress": "off",
        }
        command = [sys.executable, "run.py", *(f"--{key}={of}" for key, of in options.items())]
        quiet = subprocess.DEVNULL
        subprocess.run(command, cwd=rounds.HERE.parent, check=True, stdout=quiet, stderr=quiet)
        result = json.loads((Path(run_dir) / "result.json").read_text())
    return sum(result["startup_seconds"].values())


def streamed(
    places: dict[str, Path], dataset: str, cache: Path, blocks: int, seconds: float
) -> Any:
    """Streams the sets in turn; returns the steps/s of the blocks of each, by its name."""
    from benchmarks.engine_stream import Consumer

    consumers = {
        name: Consumer(str(place), 0, dataset, str(cache)) for name, place in places.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in consumers}
    for number in range(blocks + 1):
        turn = list(consumers.items())
        for name, consumer in turn if number % 2 else reversed(turn):
            consumer.take(100)  # what was prefetched while the other one was read
            begun, steps = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                consumer.take(50)
                steps += 50
            if number:  # the first block fills the page cache
                rates[name].append(steps / (time.perf_counter() - begun))
    for consumer in consumers.values():
        consumer.feed.close()
    return rates


def memory(place: Path, dataset: str, cache: Path) -> dict[str, float]:
    """Streams a set in a new process; returns the peaks of its memory in MiB, as `held` does."""
    command = [sys.executable, "-m", "benchmarks.stream_memory", str(place), str(MEMORY_BATCHES)]
    command += [dataset, str(cache)]
    found = subprocess.run(command, cwd=rounds.HERE.parent, check=True, capture_output=True)
    return json.loads(found.stdout.splitlines()[-1])["most"]


def main() -> int:
    """Runs the benchmark, prints the table and returns 0."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.large_data", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--data_dir", type=Path, required=True, help="where the data is prepared")
    made.add_argument("--dataset", default="cifar10")
    made.add_argument("--gigabytes", type=float, default=40.0, help="size of the large set")
    made.add_argument("--starts", type=int, default=3, help="starts of each set after the first")
    made.add_argument("--blocks", type=int, default=7, help="blocks of streaming of each set")
    made.add_argument("--seconds", type=float, default=3.0, help="of a block")
    args = made.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        small = linked(args.data_dir, args.dataset, 1, root / "small")
        size = sum(path.stat().st_size for path in small.rglob("*tfrecord*"))
        shards = max(2, round(args.gigabytes * 1e9 / size))
        places = {SMALL: small, LARGE: linked(args.data_dir, args.dataset, shards, root / "large")}
        caches = {name: root / f"cache of {name}" for name in places}
        print(f"{shards} links to a shard of {size / 1e6:.0f} MB", flush=True)
        first = {name: started(places[name], args.dataset, caches[name]) for name in places}
        print(f"first start, s: {first}", flush=True)
        later: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(args.starts):
            for name, place in places.items():
                later[name].append(started(place, args.dataset, caches[name]))
        print(f"later starts, s: {later}", flush=True)
        rates: dict[str, list[float]] = {name: [1.0] for name in places}
        if args.blocks:
            rates = streamed(places, args.dataset, caches[LARGE], args.blocks, args.seconds)
        peaks = {
            name: memory(place, args.dataset, caches[name]) if os.path.exists("/proc") else {}
            for name, place in places.items()
        }
    medians = {name: float(np.median(of)) for name, of in rates.items()}
    ratios = np.array(rates[LARGE]) / np.array(rates[SMALL])
    print(
        "\n| | first start, s | later starts, s | steps/s | own memory, MiB | mapped files, MiB |"
    )
    print("|---" * 6 + "|")
    for name in places:
        own, files = (f"{peaks[name].get(kind, 0):,.0f}" for kind in ("RssAnon", "RssFile"))
        starts = f"{first[name]:.1f} | {np.median(later[name]):.1f}"
        print(f"| {name} | {starts} | {medians[name]:,.0f} | {own} | {files} |")
    low, high = np.quantile(ratios, [0.1, 0.9])
    print(f"\nsteps/s, large over one shard: {np.median(ratios):.3f} ({low:.3f} to {high:.3f})")
    found = {"shards": shards, "first": first, "later": later, "rates": rates, "memory": peaks}
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
