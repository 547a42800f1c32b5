"""Checks that all contenders of W5 to W8 train the same network, and prints a table.

    python -m benchmarks.real.check [--workloads=W5,W7] [--only=bare,torch] [--steps=20]

Each contender trains from the same weights, on the same batches in the same order, without
augmentation, in float32, and tells the number of its parameters and the loss of each step. The
first losses agree up to rounding, the later ones within 1% of the first or 0.02: rounding grows,
and PyTorch and JAX add the weight decay of momentum to the gradient, the others take it off the
weights. PyTorch and Keras also have biases of the keys, which change nothing. The exit status is 1
if a contender differs.

    python -m benchmarks.real.check --engine

compares the weights of the engine with those of the loop by hand after --steps steps, with the
engine's order and augmentation, for each workload, in both precisions: the norm of the difference
over the norm of all weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import python_of
from benchmarks.real import arrays
from benchmarks.real.specs import PRECISIONS, SPECS, Spec
from benchmarks.rounds import HERE, environment

PEERS = {
    "keras": {"steps_per_execution": 1, "jit": False, "input": "array"},
    "torch": {"compile": False, "channels_last": True},
    "jax": {"scan": 0},
}
_FIRST, _LATER = 1e-4, 0.02  # allowed differences of losses, over the reference's, at least 1


def bare_losses(spec: Spec, steps: int) -> dict[str, Any]:
    """Returns the number of parameters and the losses of the loop by hand."""
    from benchmarks.real.bare import Bare

    bare, losses = Bare(spec, shuffled=False), []
    for _ in range(steps):
        bare.take(1)
        losses.append(bare.loss)
    return {"parameters": parameters(spec), "losses": losses}


def parameters(spec: Spec) -> int:
    """Returns the number of trainable parameters of a workload."""
    return sum(int(np.prod(shape)) for _, shape in arrays.shapes(spec))


def peer_losses(name: str, spec: Spec, place: Path, steps: int) -> dict[str, Any]:
    """Returns the number of parameters and the losses of a peer, from a process of its own.

    Raises:
      RuntimeError: if the process fails.
    """
    script, variant = str(HERE / "peers" / f"real_{name}.py"), json.dumps(PEERS[name])
    python = str(python_of(place, name).absolute())
    command = [python, script, spec.name, "float32", variant, str(steps)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment())
    if ran.returncode:
        raise RuntimeError(f"{name}: {ran.stderr.strip().splitlines()[-1]}")
    return json.loads(ran.stdout.splitlines()[-1])


def agrees(spec: Spec, reference: dict[str, Any], found: dict[str, Any]) -> bool:
    """Returns whether a contender has the parameters and, within rounding, the reference's losses.

    The number of parameters may include the biases of the keys of each attention.
    """
    key_biases = spec.sizes.get("depth", 0) * spec.sizes.get("units", 0)
    allowed = reference["parameters"], reference["parameters"] + key_biases
    ours, theirs = np.asarray(reference["losses"]), np.asarray(found["losses"])
    error = np.abs(ours - theirs) / np.maximum(1, ours)
    return bool(found["parameters"] in allowed and error[0] < _FIRST and error.max() < _LATER)


def engine_difference(
    spec: Spec, precision: str, steps: int, *options: str, jit: bool | None = None
) -> tuple[float, bool]:
    """Compares the weights of the engine with those of the loop by hand after some steps.

    Args:
      spec: the workload, which `SPECS` holds by its name.
      precision: "float32" or "bfloat16".
      steps: number of steps.
      *options: further options of the engine.
      jit: whether XLA compiles the loop by hand; None: as the engine's.

    Returns:
      Norm of the difference over the norm of all weights, and whether all bits are the same.
    """
    from tensorflow.python.framework import config as determinism

    from benchmarks.real import engine_weights
    from benchmarks.real.bare import Bare
    from benchmarks.real.engine_loop import training

    names = [name for name, _ in arrays.shapes(spec)]
    with training(spec, precision, *options) as (trainer, parts):
        weights = engine_weights.values_of(parts.model, names)
        trainer.train(until=steps)
        trained = engine_weights.values_of(parts.model, names)
        jit = parts.jit == "loop" if jit is None else jit
    enabled = determinism.is_op_determinism_enabled()
    determinism.disable_op_determinism()  # with it, TensorFlow's loss op is another one
    try:
        bare = Bare(spec, precision, jit, weights)
        bare.take(steps)
    finally:
        if enabled:
            determinism.enable_op_determinism()
    ours = {name: weight.numpy() for name, weight in bare.weights.items()}
    off = np.sqrt(sum(np.sum(np.square(ours[n] - trained[n])) for n in names))
    length = np.sqrt(sum(np.sum(np.square(trained[n])) for n in names))
    return float(off / length), all(np.array_equal(ours[n], trained[n]) for n in names)


def main() -> int:
    """Prints the comparisons; returns 0, or 1 if a contender differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.check")
    parser.add_argument("--workloads", default=",".join(SPECS))
    parser.add_argument("--only", default=",".join(PEERS), help="peers, separated by commas")
    parser.add_argument("--place", type=Path, default=Path(".benchmarks"), help="environments")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--engine", action="store_true", help="the engine beside the loop by hand")
    args = parser.parse_args()
    chosen = [SPECS[name] for name in args.workloads.split(",")]
    if args.engine:
        print("| | precision | steps | difference of the weights | bits |\n|---|---|---|---|---|")
        for spec in chosen:
            for precision in PRECISIONS:
                with tempfile.TemporaryFile("w") as log, contextlib.redirect_stdout(log):
                    off, same = engine_difference(spec, precision, args.steps)
                words = "the same" if same else "others"
                print(f"| {spec.name} | {precision} | {args.steps} | {off:.2g} | {words} |")
        return 0
    failed = False
    print("| | contender | parameters | first loss | last loss | |\n|---|---|---|---|---|---|")
    for spec in chosen:
        reference = bare_losses(spec, args.steps)
        found = {"loop by hand": reference}
        found |= {n: peer_losses(n, spec, args.place, args.steps) for n in args.only.split(",")}
        for name, each in found.items():
            same = agrees(spec, reference, each)
            failed |= not same
            first, last = each["losses"][0], each["losses"][-1]
            cells = (spec.name, name, f"{each['parameters']:,}", f"{first:.5f}", f"{last:.5f}")
            print(f"| {' | '.join(cells)} | {'ok' if same else 'DIFFERS'} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
