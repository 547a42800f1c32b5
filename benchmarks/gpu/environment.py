"""Prints what is there, as lines of JSON: processor, driver, GPUs, TensorFlow, CUDA and cuDNN.

python -m benchmarks.gpu.environment
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from typing import Any

from benchmarks.gpu.timing import tell

_QUERY = "name,driver_version,memory.total,compute_cap,power.limit,clocks.max.sm"


def driver() -> list[dict[str, str]] | str:
    """Returns what nvidia-smi says of each GPU, or in one line why it says nothing."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi cannot be run: {error}"
    if done.returncode:
        return f"nvidia-smi: {' '.join((done.stdout + done.stderr).split())[:200]}"
    names = [name.strip() for name in _QUERY.split(",")]
    lines = done.stdout.splitlines()
    return [dict(zip(names, map(str.strip, line.split(",")), strict=False)) for line in lines]


def commit() -> str | None:
    """Returns the commit of this directory, with "-dirty" after changes; None if it has none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def tensorflow() -> dict[str, Any]:
    """Returns versions of TensorFlow and of what it was built with, and the GPUs that it finds."""
    from engine.runtime.startup import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    import engine
    from engine.benchmark.machine import described

    build = tf.sysconfig.get_build_info()
    gpus = [
        {
            "name": details.get("device_name"),
            "compute_capability": ".".join(map(str, details.get("compute_capability", ()))),
        }
        for gpu in tf.config.list_physical_devices("GPU")
        for details in [tf.config.experimental.get_device_details(gpu)]
    ]
    return {
        "tapeline": engine.__version__,
        "tensorflow": tf.__version__,
        "built_with_cuda": build.get("is_cuda_build", False),
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version"),
        "compute_capabilities_of_the_build": build.get("cuda_compute_capabilities"),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "machine": described(),
        "gpus": gpus,
        "device": gpus[0]["name"] if gpus else None,
    }


def main() -> None:
    """Prints a line before TensorFlow is imported, and one after."""
    figures: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "xla_flags": os.environ.get("XLA_FLAGS"),
        "commit": commit(),
        "driver": driver(),
    }
    tell(figures)
    tell(figures | tensorflow())


if __name__ == "__main__":
    sys.exit(main())
