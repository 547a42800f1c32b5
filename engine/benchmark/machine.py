"""Describes the machine, and measures memory use and GPU utilization."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

import pipelines
from engine.runtime.processor import this_processor

_SAMPLE_SECONDS = 0.25  # interval between two samples of the GPU's utilization


def peak_rss_mb() -> float:
    """Returns the peak resident memory of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def described() -> dict[str, Any]:
    """Returns a description of this machine: "processor", "features", "cores" and "system".

    The features are the instruction sets that matter for speed, of those that oneDNN may use. The
    cores are the number of logical CPUs that this process may use; the system is the operating
    system with its version.
    """
    return {
        "processor": _processor(),
        "features": this_processor().summary,
        "cores": pipelines.usable_cores(),
        "system": platform.platform(),
    }


def gpu_memory_mb() -> float | None:
    """Returns TensorFlow's peak memory on the first GPU, in MiB; None without a GPU."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


@contextlib.contextmanager
def gpu_utilization() -> Iterator[list[float]]:
    """Samples the utilization of the first GPU of nvidia-smi, 0 to 1, during a `with` block.

    A thread appends samples to the yielded list, at most four a second. The list stays empty if
    TensorFlow has no GPU or nvidia-smi cannot be run. Sampling ends when nvidia-smi fails.
    """
    samples: list[float] = []
    stop = threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def sample() -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
            while not stop.wait(_SAMPLE_SECONDS):
                out = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
                samples.append(float(out.splitlines()[0]) / 100)

    if not tf.config.list_logical_devices("GPU"):
        yield samples
        return
    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
