"""Times blocks of training steps, and prints the figures as JSON after every block.

A process of the benchmark prints one JSON object a line. The last one counts, so that a process
that is ended before it is done has told what it knows.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.workloads import FULL, REHEARSED, GpuWorkload


class Length(NamedTuple):
    """Number of the timed blocks, and the approximate seconds of each."""

    blocks: int
    seconds: float


FULL_LENGTH, REHEARSED_LENGTH = Length(6, 1.5), Length(2, 0.02)


def parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser of the arguments of a process that measures a workload."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.gpu.{module}", description=doc)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("workload", choices=FULL)
    made.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    return made


def workload_of(args: argparse.Namespace) -> tuple[GpuWorkload, Length]:
    """Returns the workload that the arguments name, and how long to measure it."""
    if args.rehearse:
        return REHEARSED[args.workload], REHEARSED_LENGTH
    return FULL[args.workload], FULL_LENGTH


def measure(
    take: Callable[[int], None], figures: dict[str, Any], length: Length, at_least: int = 1
) -> None:
    """Times the first step and then blocks of steps; prints all figures after every block.

    Args:
      take: takes a number of training steps, and waits for their end.
      figures: what is known already; `first_step_seconds`, `steps_per_second` (`median`, `p10`,
        `p90`), `blocks`, `steps_per_block` and the memory are added.
      length: number and duration of the blocks.
      at_least: the number of steps of a block is a multiple of it.
    """
    tell(figures)
    started = time.perf_counter()
    take(at_least)
    figures["first_step_seconds"] = time.perf_counter() - started
    tell(figures)
    steps = fitted(take, length.seconds, at_least)
    rates: list[float] = []
    for _ in range(length.blocks):
        started = time.perf_counter()
        take(steps)
        rates.append(steps / (time.perf_counter() - started))
        figures["steps_per_second"] = spread(rates)
        figures |= {"blocks": len(rates), "steps_per_block": steps, **memory()}
        tell(figures)


def fitted(take: Callable[[int], None], seconds: float, at_least: int = 1) -> int:
    """Returns the number of steps that takes about `seconds`, a multiple of `at_least`."""
    steps = at_least
    while True:
        started = time.perf_counter()
        take(steps)
        spent = time.perf_counter() - started
        if spent > seconds / 4:
            return at_least * max(1, round(steps / at_least * seconds / spent))
        steps *= 2


def spread(values: list[float]) -> dict[str, float]:
    """Returns the median, and the tenth and ninetieth percentile, of one or more values."""
    p10, median, p90 = np.percentile(values, [10, 50, 90]).tolist()
    return {"median": median, "p10": p10, "p90": p90}


def tell(figures: dict[str, Any]) -> None:
    """Prints the figures as a line of JSON."""
    print(json.dumps(figures), flush=True)


def memory() -> dict[str, float]:
    """Returns the peaks of memory so far, in MiB: of the process, and of TensorFlow on the GPU."""
    found = {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    tf = sys.modules.get("tensorflow")
    if tf is not None and tf.config.list_logical_devices("GPU"):
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        found["peak_gpu_memory_mb"] = peak / 2**20
    return found


def described(tf: Any, workload: GpuWorkload, contender: str, jit: str) -> dict[str, Any]:
    """Returns the first figures of a process that uses TensorFlow.

    Args:
      tf: the module of TensorFlow.
      workload: what is trained.
      contender: name of the implementation.
      jit: what XLA compiles: "off", "step" or "loop".
    """
    from tensorflow.python.framework import config

    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return {
        "workload": workload.name,
        "what": workload.what,
        "contender": contender,
        "precision": workload.precision,
        "batch": workload.batch,
        "jit": jit,
        "device": details.get("device_name"),
        "deterministic": config.is_op_determinism_enabled(),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "versions": {"tensorflow": tf.__version__},
    }


def synchronize(tf: Any) -> None:
    """Waits until the GPU, if there is one, has done all its work."""
    if tf.config.list_logical_devices("GPU"):
        tf.test.experimental.sync_devices()


def grow_memory(tf: Any) -> None:
    """Makes TensorFlow allocate a GPU's memory as it is needed, as the engine does."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
