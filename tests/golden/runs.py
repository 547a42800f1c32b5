"""Which runs, on what machine, and how their losses are kept."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from engine import flags
from engine.assembly import assemble

ROOT = Path(__file__).parents[2]
STEPS = 50
# A recipe each, and what is added to it: README.md says why.
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
# Flags of a processor by which kernels are chosen.
_INSTRUCTIONS = re.compile(r"sse4_\d|avx.*|fma|f16c|amx.*|sve.*|asimd.*|bf16|i8mm")


def losses(name: str, *, data_dir: str, cache_dir: str, nudge: int = 0) -> list[float]:
    """The mean loss of each step's batch.

    Args:
      name: of the run.
      data_dir: where MNIST is.
      cache_dir: for decoded examples.
      nudge: above 0: begins with other weights, each one or a few roundings away.
    """
    recipe, *options = RUNS[name]
    # The stream reads no more than it needs, and gives the bits that the resident feed would.
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
    """The largest relative difference of two runs' losses."""
    return float(np.max(np.abs(np.divide(found, wanted) - 1)))


def machine() -> dict[str, Any]:
    """All that is known to change bits: where two of these agree, so do the losses.

    The kernels' vector instructions, the sizes of caches, by which products are cut into blocks,
    and the number of threads, by which sums are: TensorFlow takes one a core that it may use.
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
    """Where a run's losses are kept."""
    return Path(__file__).parent / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """What was written: "run", "machine" and "losses"."""
    return json.loads(path(name).read_text())


def text(name: str, found: list[float]) -> str:
    """What is to be written; JSON keeps every bit of a float."""
    kept = {"run": RUNS[name], "machine": machine(), "losses": found}
    return json.dumps(kept, indent=1) + "\n"
