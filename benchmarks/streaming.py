"""Compares the speed of the engine's streaming feed and tf.data, and writes STREAMING.md.

    python -m benchmarks.streaming --data_dir=DATA_DIR [--times=100]

The engine's feed reads each epoch in a new order; the hand-written pipeline reads in file order.
The method is described in benchmarks/rounds.py. With --times=T, also measures the memory of the
feed for a dataset T times as large, which is written to a temporary directory: 20 MB for each copy.
Run nothing else at the same time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import rounds
from benchmarks.repeated import repeat
from benchmarks.rounds import HERE, Contender

BATCH = 128


def contenders(data_dir: str, quick: bool) -> list[Contender]:
    """Returns two contenders: the engine's feed, and a tf.data pipeline with several variants.

    Args:
      data_dir: directory in which MNIST is prepared.
      quick: whether to try fewer settings.
    """

    def bare(variant: dict[str, Any]) -> list[str]:
        return [sys.executable, str(HERE / "bare_stream.py"), data_dir, json.dumps(variant)]

    tuned = rounds.variants(
        bare,
        decode=("unrolled",) if quick else ("each", "batch", "unrolled"),
        ordered=(True,) if quick else (True, False),
        reads=("one", "tuned"),
    )
    here = [sys.executable, "-m", "benchmarks.engine_stream", data_dir]
    return [Contender("Tapeline", {"": here}), Contender("bare tf.data", tuned)]


def memory(data_dir: str, times: int) -> dict[str, dict[str, Any]]:
    """Measures the memory for streaming MNIST, in one and in many epochs, and a larger dataset.

    Args:
      data_dir: directory in which MNIST is prepared.
      times: number of epochs of MNIST, and how many times as large the larger dataset is.

    Returns:
      The JSON that benchmarks/stream_memory.py prints, by description of the measurement.

    Raises:
      subprocess.CalledProcessError: if a measuring process fails.
    """

    def streamed(place: str, *batches: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.stream_memory", place, *batches]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    with tempfile.TemporaryDirectory() as scratch:
        examples = repeat(Path(data_dir), Path(scratch), times)
        return {
            "MNIST, an epoch": streamed(data_dir),
            f"MNIST, {times} epochs": streamed(data_dir, str(-(-examples // BATCH))),
            f"{times} times MNIST, an epoch": streamed(scratch),
        }


def memory_rows(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of the table of memory use; `found` is a result of `memory`."""
    yield "| | examples streamed | own memory, MiB | mapped files, MiB |"
    yield "|---|---|---|---|"
    for name, each in found.items():
        own, files = each["most"]["RssAnon"], each["most"]["RssFile"]
        yield f"| {name} | {each['examples']:,} | {own:,.0f} | {files:,.0f} |"


def main() -> int:
    """Runs the benchmark, writes streaming.json and STREAMING.md, and returns 0."""
    parser = rounds.parser("streaming", __doc__)
    parser.add_argument("--times", type=int, default=0, help="how large a data set for memory")
    args = parser.parse_args()
    results = rounds.begun("streaming", "streaming.json", args, "rounds", "seconds", "times")
    with tempfile.TemporaryFile() as errors:
        asked = contenders(args.data_dir, args.quick)
        found = rounds.compared(asked, args, errors, "examples/s", BATCH)
    results |= found
    lines = [
        *rounds.heading("Streaming", results),
        "",
        f"MNIST's training split in batches of {BATCH}, decoded and not looked at.",
        "",
        *rounds.rows(found),
        "",
        rounds.versions(found),
    ]
    if args.times:
        results["memory"] = memory(args.data_dir, args.times)
        lines += ["", "The most memory held:", "", *memory_rows(results["memory"])]
    rounds.write(args.out, results, "STREAMING.md", lines)
    print("\n".join(lines[8:]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
