"""Compares the memory that an inspection expects with what TensorFlow's allocator measures.

    python -m benchmarks.memory --data_dir=DATA_DIR [--only=NAME]

DATA_DIR holds MNIST, CIFAR-10 and tiny_shakespeare. A network trains two steps under TensorFlow's
profiler, in a process of its own, which prints a line of JSON; then a table of all is printed.
TensorFlow records the allocations of a CPU only with oneDNN, and those of 256 KiB or more. Its
allocator takes chunks that are up to twice as large as what is asked for; "requested" counts what
is asked for.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.real.specs import SPECS, Spec, options

_MIB = 1 << 20
_OWN = "--load=benchmarks/networks.py"
_TEXT = (
    "--load=examples/character_model.py",
    "--dataset=shakespeare",
    "--task=next_character",
    "--model=transformer",
    "--dataset.data_dir=DATA_DIR",
    "--dataset.context=128",
    "--global_batch_size=32",
    "--validation_split=0",
)


def _real(spec: Spec) -> tuple[str, ...]:
    """Returns the options of W5 to W8."""
    data = "--dataset=real_examples", f"--dataset.workload={spec.name}"
    few = f"--dataset.examples={8 * spec.batch}", "--validation_split=0"
    return *data, *few, *options(spec, "float32")


NETWORKS = {
    "W1": ("--dataset=mnist", "--model=seed_003", "--global_batch_size=128"),
    "ResNet-18": ("--dataset=cifar10", _OWN, "--model=resnet_18", "--global_batch_size=64"),
    "transformer": _TEXT,
    "transformer, XLA": (*_TEXT, "--jit=loop"),
} | {spec.name: _real(spec) for spec in SPECS.values()}


def measured(options: list[str]) -> dict[str, Any]:
    """Trains two steps of a run; returns the bytes that are expected and those that are measured.

    Args:
      options: options of the run.

    Returns:
      "expected" and "expected_step" as `engine.inspection.cost.Cost.memory` and `Cost.step`; "peak"
      of the allocator, with the part of its chunks that is not asked for; "step", the largest sum
      of requested bytes over what is allocated between steps; "flops" of a step; "weights", a hash
      of the weights after three steps.
    """
    from engine.runtime.startup import import_tensorflow

    import_tensorflow()

    from engine.assembly.parts import assemble
    from engine.config import flags
    from engine.inspection.cost import cost

    config = flags.parse(options)
    parts = assemble(config)
    parts.loop.run(1)
    highest, peak = allocated(lambda: [parts.loop.run(1) for _ in range(2)])
    weights = hashlib.sha256()
    for variable in parts.model.variables:
        weights.update(variable.numpy().tobytes())
    expected = cost(config, parts.source, parts, 1, traced=True)
    return {
        "jit": parts.jit,
        "expected": expected.memory,
        "expected_step": expected.step,
        "peak": peak,
        "step": highest,
        "flops": expected.flops,
        "weights": weights.hexdigest(),
    }


def allocated(run: Callable[[], object]) -> tuple[float, int]:
    """Runs a function under TensorFlow's profiler; returns what it allocated.

    Returns:
      The largest sum of requested bytes over what was allocated before, and the peak of the
      allocator, with the part of its chunks that is not asked for.

    Raises:
      SystemExit: if TensorFlow records no allocations.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as place:
        levels = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3)
        with tf.profiler.experimental.Profile(place, levels):
            run()
        events = list(_events(place))
    if not events:
        raise SystemExit("TensorFlow recorded no allocations: it does so on a CPU with oneDNN only")
    alive = highest = 0.0
    sizes: dict[int, float] = {}
    for name, values in events:
        if name == "MemoryAllocation":
            sizes[values["addr"]] = values["requested_bytes"]
            alive += values["requested_bytes"]
        else:
            alive -= sizes.pop(values["addr"], 0.0)
        highest = max(highest, alive)
    return highest, max(values.get("peak_bytes_in_use", 0) for _, values in events)


def _events(place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the allocations and deallocations of a profile, in order: (name, values)."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = glob.glob(f"{place}/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace()
    with open(path, "rb") as file:
        space.ParseFromString(file.read())
    found = []
    for plane in space.planes:
        names = {number: each.name for number, each in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if name not in ("MemoryAllocation", "MemoryDeallocation"):
                    continue
                values = {}
                for stat in event.stats:
                    values[names[stat.metadata_id]] = getattr(stat, stat.WhichOneof("value"))
                values["addr"] = values.get("addr", values.get("address"))
                found.append((line.timestamp_ns * 1000 + event.offset_ps, name, values))
    for _, name, values in sorted(found, key=lambda each: each[0]):
        yield name, values


def main() -> int:
    """Measures the networks and prints the table; returns the exit status, 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--data_dir", required=True, help="directory of prepared data sets")
    parser.add_argument("--only", choices=NETWORKS, help="name of a network, in this process")
    given = parser.parse_args()
    if given.only:
        options = [o.replace("DATA_DIR", given.data_dir) for o in NETWORKS[given.only]]
        print(json.dumps(measured([f"--data_dir={given.data_dir}", "--progress=off", *options])))
        return 0
    header = ("network", "XLA", "step, expected", "requested", "ratio", "all, expected", "peak")
    print(f"| {' | '.join(header)} | ratio |\n|{'---|' * (len(header) + 1)}", flush=True)
    for name in NETWORKS:
        command = [sys.executable, "-m", "benchmarks.memory", f"--data_dir={given.data_dir}"]
        ran = subprocess.run([*command, f"--only={name}"], capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(f"{name}: {ran.stderr.strip()}")
        of = json.loads(ran.stdout.splitlines()[-1])
        step, everything = of["expected_step"] / of["step"], of["expected"] / of["peak"]
        sizes = [f"{of[key] / _MIB:.1f} MiB" for key in ("expected_step", "step")]
        whole = [f"{of[key] / _MIB:.1f} MiB" for key in ("expected", "peak")]
        cells = (name, of["jit"], *sizes, f"{step:.2f}", *whole, f"{everything:.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
