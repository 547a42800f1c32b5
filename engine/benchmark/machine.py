"""What runs it, and how much of it is in use."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any

import tensorflow as tf

_EVERY = 0.25  # seconds between two looks at a GPU
_QUERY = "utilization.gpu"


def peak_rss_mb() -> float:
    """The most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def described() -> dict[str, Any]:
    """Processor, cores that this process may use, and system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
    }


def gpu_memory_mb() -> float | None:
    """The most memory that TensorFlow has held on the first GPU, in MB; None without one."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


class GpuWatch:
    """Looks at the GPUs now and then while it is entered; without any, or the driver's tool, never.

    utilisation: of the first one, 0 to 1, at each look.
    """

    def __init__(self) -> None:
        self.utilisation: list[float] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuWatch:
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
