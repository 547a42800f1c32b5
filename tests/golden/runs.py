"""The golden runs, the machine fingerprint, and the file format of the losses."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from engine.assembly.parts import assemble
from engine.config import flags

ROOT = Path(__file__).parents[2]
STEPS = 50
# A recipe and additional options; README.md gives the reasons.
RUNS = {
    "seed_000": (
        "recipes/seed_000.flags",
        "--optimizer=adamw",
        "--schedule=one_cycle",
        "--train_steps=50",
    ),
    "seed_003": ("recipes/seed_003.flags", "--optimizer=nesterov"),
    "quickstart": ("quickstart.flags", "--train_steps=50", "--seed=2"),
}
ON_MNIST = ("seed_000", "seed_003")
# CPU flags that kernels are selected by.
_INSTRUCTIONS = re.compile(r"sse4_\d|avx.*|fma|f16c|amx.*|sve.*|asimd.*|bf16|i8mm")


def losses(name: str, *, data_dir: str, cache_dir: str, nudge: int = 0) -> list[float]:
    """Trains `STEPS` steps of a golden run; returns the mean loss of each step's batch.

    Args:
      name: name of the run.
      data_dir: TFDS directory with MNIST.
      cache_dir: cache of decoded examples.
      nudge: if above 0, the seed of a perturbation of the initial weights by a few roundings.
    """
    recipe, *options = RUNS[name]
    # The streaming feed reads only what is needed and has the bits of the in-memory feed.
    here = (f"--data_dir={data_dir}", f"--cache_dir={cache_dir}", "--feed=stream", "--test_split=")
    parts = assemble(
        flags.parse(
            [f"--flagfile={ROOT / recipe}", *options, *here, "--strategy=cpu", "--progress=off"]
        )
    )
    if nudge:
        random = np.random.default_rng(nudge)
        for weight in parts.model.trainable_variables:
            weight.assign(weight * np.float32(1 + 2e-7 * random.normal(size=weight.shape)))
    found = []
    for _ in range(STEPS):
        parts.state.sums.assign(tf.zeros_like(parts.state.sums))
        parts.loop.run(1)
        loss, _, examples = parts.state.sums.numpy()[:3]
        found.append(float(loss / examples))
    parts.close()
    return found


def drift(found: list[float], wanted: list[float]) -> float:
    """Returns the largest relative difference of a step's losses, `found` from `wanted`."""
    return float(np.max(np.abs(np.divide(found, wanted) - 1)))


def machine() -> dict[str, Any]:
    """Returns a fingerprint of what is known to change bits; equal fingerprints give equal losses.

    The fingerprint includes the version of TensorFlow, the settings of oneDNN, the processor, the
    vector instructions of the kernels, the cache sizes, which determine the blocks of matrix
    products, and the number of threads, which divides sums. TensorFlow uses one thread per
    available core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("TF_NUM_INTRAOP_THREADS")
    return {
        "tensorflow": tf.__version__,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "onednn_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "default"),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or int(threads or cores),
        **_processor(),
    }


def _processor() -> dict[str, Any]:
    said: dict[str, str] = {}
    if os.path.exists("/proc/cpuinfo"):
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        said = dict(re.findall(r"^(.+?)\s*:\s*(.*)$", first, re.MULTILINE))
    names = ("vendor_id", "model name", "cpu family", "model", "stepping")
    instructions = said.get("flags", said.get("Features", "")).split()
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return {
        "processor": " ".join(said.get(name, "?") for name in names)
        if said
        else platform.machine(),
        "instructions": sorted(filter(_INSTRUCTIONS.fullmatch, instructions)),
        "caches": [path.read_text().strip() for path in caches],
    }


def path(name: str) -> Path:
    """Returns the path of a run's golden file."""
    return Path(__file__).parent / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """Returns the content of a run's golden file: "run", "machine" and "losses"."""
    return json.loads(path(name).read_text())


def text(name: str, found: list[float]) -> str:
    """Returns the text of a run's golden file with the losses `found`.

    JSON preserves every bit of a float.
    """
    kept = {"run": RUNS[name], "machine": machine(), "losses": found}
    return json.dumps(kept, indent=1) + "\n"
