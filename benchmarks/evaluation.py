"""Compares the speed of the engine and Keras at evaluating MNIST, and writes EVALUATION.md.

    python -m benchmarks.environments .benchmarks
    python -m benchmarks.data DATA_DIR .benchmarks/mnist.npz
    python -m benchmarks.evaluation --data_dir=DATA_DIR

The method is described in benchmarks/rounds.py. Run nothing else at the same time.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rounds
from benchmarks.bare import MODELS
from benchmarks.environments import python_of
from benchmarks.rounds import HERE, Contender
from benchmarks.workloads import SEED, WORKLOADS, Workload
from tapeline import models

EXAMPLES = 10_000
BATCHES = (128, 256, 512, 1000, 2000, 10_000)


def contenders(
    workload: Workload, place: Path, data_dir: str, weights: Path, quick: bool
) -> list[Contender]:
    """Returns the engine with defaults, and Keras with defaults and with tuned settings.

    Args:
      workload: whose network to evaluate.
      place: directory of Keras's environment and of mnist.npz.
      data_dir: directory in which MNIST is prepared.
      weights: file that `write_weights` has written.
      quick: whether to tune fewer settings of Keras.
    """

    def keras(variant: dict[str, Any]) -> list[str]:
        python = str(python_of(place, "keras").absolute())
        script, arrays = str(HERE / "peers" / "keras_evaluate.py"), str(place / "mnist.npz")
        return [python, script, workload.name, arrays, json.dumps(variant), str(weights)]

    tuned = rounds.variants(
        keras,
        batch=BATCHES,
        jit=(False,) if quick else (False, True),
        input=("array",) if quick else ("array", "dataset"),
    )
    here = [sys.executable, "-m", "benchmarks.engine_evaluation", workload.name, data_dir]
    return [
        Contender("Tapeline", {"": here}),
        Contender(
            "Keras evaluate, default", {"": keras({"batch": None, "jit": "auto", "input": "array"})}
        ),
        Contender("Keras evaluate, tuned", tuned),
    ]


def write_weights(workload: Workload, path: Path) -> None:
    """Writes the engine's initial weights to an .npz file in Keras's order: kernel, bias by layer.

    The names of the arrays, "000" and so on, sort in this order.
    """
    network = models.build(
        MODELS[workload.network],
        input_shape=(28, 28, 1),
        output_shape=(10,),
        seed=SEED,
        hidden=workload.hidden,
    )
    biases, kernels = network.trainable_variables[::2], network.trainable_variables[1::2]
    in_order = [part.numpy() for pair in zip(kernels, biases, strict=True) for part in pair]
    np.savez(path, **{f"{place:03}": part for place, part in enumerate(in_order)})


def agree(found: dict[str, Any]) -> bool:
    """Returns whether all contenders computed the same loss and accuracy.

    Each may differ from the first contender's by a relative 1e-5. `found` is a result of
    `rounds.compared`.
    """
    first, *others = found["final"].values()
    return all(
        math.isclose(first[name], each[name], rel_tol=1e-5)
        for each in others
        for name in ("loss", "accuracy")
    )


def main() -> int:
    """Runs the benchmark, writes evaluation.json and EVALUATION.md, and returns 0."""
    args = rounds.parser("evaluation", __doc__).parse_args()
    workload = WORKLOADS["W1"]
    results = rounds.begun("evaluation", "evaluation.json", args, "rounds", "seconds")
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as errors:
        weights = Path(scratch) / "weights.npz"
        write_weights(workload, weights)
        asked = contenders(workload, args.place, args.data_dir, weights, args.quick)
        found = rounds.compared(asked, args, errors, "examples/s", EXAMPLES)
    results |= found | {"agree": agree(found)}
    words = "the same" if results["agree"] else "ANOTHER"
    lines = [
        *rounds.heading("Evaluation", results),
        "",
        f"{EXAMPLES:,} images; the network of {workload.name}.",
        "",
        *rounds.rows(found),
        "",
        rounds.versions(found),
        "",
        f"With the same weights all find {words} loss and accuracy.",
    ]
    rounds.write(args.out, results, "EVALUATION.md", lines)
    print("\n".join(lines[-4 - len(found["rates"]) :]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
