"""Describes the machine, and measures memory use and GPU utilization."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any

import tensorflow as tf

import pipelines

_EVERY = 0.25  # seconds between two samples
_QUERY = "utilization.gpu"


def peak_rss_mb() -> float:
    """Returns the peak resident memory of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def described() -> dict[str, Any]:
    """Returns the processor, the number of cores that this process may use, and the system."""
    return {
        "processor": _processor(),
        "cores": pipelines.usable_cores(),
        "system": platform.platform(),
    }


def gpu_memory_mb() -> float | None:
    """Returns TensorFlow's peak memory on the first GPU, in MiB; None without a GPU."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


class GpuMonitor:
    """Context manager that samples GPU utilization; takes no samples without GPU or nvidia-smi.

    Attributes:
      utilisation: samples of the utilization of the first GPU, 0 to 1.
    """

    def __init__(self) -> None:
        self.utilisation: list[float] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuMonitor:
        if tf.config.list_logical_devices("GPU"):
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        asked = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
        while not self._stop.wait(_EVERY):
            try:
                said = subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout
                self.utilisation.append(float(said.splitlines()[0]) / 100)
            except (OSError, subprocess.SubprocessError, ValueError, IndexError):
                return


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
