"""Measures what recomputing the blocks of a 12-layer transformer saves, and what it costs.

    python -m benchmarks.recompute [--cache_dir=DIR]

The network of `benchmarks/networks.py` trains on the digits with and without
`--recompute=layers/*`, without XLA and with `--jit=loop`, each in a process of its own. "Memory" is
the largest sum of bytes that TensorFlow's allocator is asked for in a step, over what is allocated
between steps: activations, gradients and temporary tensors (`benchmarks/memory.py`). "Same weights"
says whether the weights after three steps have the same bits as without recomputation. The exit
status is 1 if the memory with recomputation is over half of that without.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from benchmarks.memory import measured

_MIB = 1 << 20
_NETWORK = (
    *("--dataset=digits", "--load=benchmarks/networks.py", "--model=deep_transformer"),
    *("--global_batch_size=128", "--progress=off"),
)


def main() -> int:
    """Measures the four trainings and prints a table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recompute")
    parser.add_argument("--cache_dir", default="", help="directory of decoded data sets")
    parser.add_argument("--jit", choices=("off", "loop"), help="one training, in this process")
    parser.add_argument("--recompute", default="", help="its --recompute")
    given = parser.parse_args()
    if given.jit:
        options = [f"--jit={given.jit}", f"--recompute={given.recompute}"]
        found = measured([*_NETWORK, f"--cache_dir={given.cache_dir}", *options])
        print(json.dumps(found))
        return 0
    header = ("XLA", "memory without", "with", "ratio", "expected ratio", "FLOP ratio")
    print(f"| {' | '.join(header)} | same weights |\n|{'---|' * (len(header) + 1)}", flush=True)
    largest = 0.0
    for jit in ("off", "loop"):
        plain, ours = (_in_process(given.cache_dir, jit, each) for each in ("", "layers/*"))
        ratios = [ours[key] / plain[key] for key in ("step", "expected_step", "flops")]
        largest = max(largest, ratios[0])
        same = "yes" if plain["weights"] == ours["weights"] else "within rounding"
        sizes = [f"{of['step'] / _MIB:.1f} MiB" for of in (plain, ours)]
        cells = (jit, *sizes, *(f"{ratio:.2f}" for ratio in ratios), same)
        print(f"| {' | '.join(cells)} |", flush=True)
    return int(largest > 0.5)


def _in_process(cache_dir: str, jit: str, recompute: str) -> dict:
    """Returns the result of `measured` of one training, which runs in a process of its own."""
    options = [f"--cache_dir={cache_dir}", f"--jit={jit}", f"--recompute={recompute}"]
    command = [sys.executable, "-m", "benchmarks.recompute", *options]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"--jit={jit} --recompute={recompute}: {ran.stderr.strip()}")
    return json.loads(ran.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
