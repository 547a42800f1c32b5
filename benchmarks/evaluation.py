"""Compares the speed of the engine and Keras at evaluating networks, and writes EVALUATION.md.

    python -m benchmarks.environments .benchmarks
    python -m benchmarks.data DATA_DIR .benchmarks/mnist.npz
    python -m benchmarks.evaluation --data_dir=DATA_DIR [--networks=W1,W6,W8]

W1 is evaluated on MNIST's test split; the ResNet-20 of W6 and the vision transformer of W8 on
examples of benchmarks/real/arrays.py, which need no data. Networks that are not selected keep their
previous table. The method is described in benchmarks/rounds.py. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import rounds
from benchmarks.bare import MODELS
from benchmarks.environments import python_of
from benchmarks.rounds import HERE, Contender
from benchmarks.workloads import SEED, WORKLOADS, Workload
from tapeline import models

RAW = "evaluation.json"
SHORT = {  # the names that --only takes
    "engine": "Tapeline",
    "keras_default": "Keras evaluate, default",
    "keras": "Keras evaluate, tuned",
}


class Evaluated(NamedTuple):
    """A network to evaluate.

    Attributes:
      what: description.
      examples: number of examples of a pass.
      batches: batch sizes among which that of Keras is chosen.
      tolerance: largest relative difference of the losses of two contenders.
    """

    what: str
    examples: int
    batches: tuple[int, ...]
    tolerance: float


NETWORKS = {
    "W1": Evaluated("two convolutions, 28x28x1", 10_000, (128, 256, 512, 1000, 2000, 10_000), 1e-5),
    "W6": Evaluated("ResNet-20, 32x32x3", 4_096, (128, 256, 512, 1024), 1e-4),
    "W8": Evaluated("ViT Ti with patches of 4x4, 32x32x3", 1_024, (64, 128, 256, 512), 1e-4),
}


def contenders(
    name: str, place: Path, data_dir: str, weights: Path, quick: bool
) -> list[Contender]:
    """Returns the engine with defaults, and Keras with defaults and with tuned settings.

    Args:
      name: name of the network, in `NETWORKS`.
      place: directory of Keras's environment and of mnist.npz.
      data_dir: directory in which MNIST is prepared.
      weights: file that `write_weights` has written, for W1.
      quick: whether to tune fewer settings of Keras.
    """
    python, own = str(python_of(place, "keras").absolute()), str(NETWORKS[name].examples)
    keras: Callable[[dict[str, Any]], list[str]]
    if name in WORKLOADS:
        here = [sys.executable, "-m", "benchmarks.engine_evaluation", name, data_dir]
        script, arrays = str(HERE / "peers" / "keras_evaluate.py"), str(place / "mnist.npz")

        def keras(variant: dict[str, Any]) -> list[str]:
            return [python, script, name, arrays, json.dumps(variant), str(weights)]

    else:
        here = [sys.executable, "-m", "benchmarks.real.engine_evaluation", name, own]
        script = str(HERE / "peers" / "real_keras_evaluate.py")

        def keras(variant: dict[str, Any]) -> list[str]:
            return [python, script, name, own, json.dumps(variant)]

    tuned = rounds.variants(
        keras,
        batch=NETWORKS[name].batches,
        jit=(False,) if quick else (False, True),
        input=("array",) if quick else ("array", "dataset"),
    )
    default = {"": keras({"batch": None, "jit": "auto", "input": "array"})}
    variants = {"": here}, default, tuned
    return [Contender(*each) for each in zip(SHORT.values(), variants, strict=True)]


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


def agree(found: dict[str, Any], evaluated: Evaluated) -> bool:
    """Returns whether all contenders computed the same loss, and the accuracy of it.

    The losses may differ by `evaluated.tolerance` of the first contender's, and the accuracies by
    as many of the examples, or one of them. `found` is a result of `rounds.compared`.
    """
    first, *others = found["final"].values()
    examples = max(1 / evaluated.examples, evaluated.tolerance) + 1e-6
    return all(
        math.isclose(first["loss"], each["loss"], rel_tol=evaluated.tolerance)
        and math.isclose(first["accuracy"], each["accuracy"], rel_tol=0, abs_tol=examples)
        for each in others
    )


def compared(name: str, args: argparse.Namespace, errors: Any) -> dict[str, Any]:
    """Measures the contenders of a network.

    Returns:
      An entry of evaluation.json: the dict of `rounds.compared` with "what", "examples", "date",
      and "agree", the result of `agree`.

    Raises:
      RuntimeError: as `rounds.compared`.
    """
    evaluated = NETWORKS[name]
    print(f"{name}: {evaluated.what}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "weights.npz"
        if name in WORKLOADS:
            write_weights(WORKLOADS[name], weights)
        asked = contenders(name, args.place, args.data_dir, weights, args.quick)
        if args.only:
            wanted = {SHORT[each] for each in args.only.split(",")}
            asked = [each for each in asked if each.name in wanted]
        given = argparse.Namespace(**{**vars(args), "only": ""})
        found = rounds.compared(asked, given, errors, "examples/s", evaluated.examples)
    about = {"what": evaluated.what, "examples": evaluated.examples}
    about["date"] = time.strftime("%Y-%m-%d")
    return about | found | {"agree": agree(found, evaluated)}


def written(results: dict[str, Any]) -> list[str]:
    """Returns the lines of EVALUATION.md for the content of evaluation.json."""
    lines = rounds.heading("Evaluation", results)
    for name, found in results["networks"].items():
        words = "the same" if found["agree"] else "ANOTHER"
        lines += ["", f"## {name}: {found['what']}; {found['examples']:,} examples", ""]
        lines += [*rounds.rows(found), "", f"{found['date']}. {rounds.versions(found)}", ""]
        lines.append(f"With the same weights all find {words} loss and accuracy.")
    return lines


def main() -> int:
    """Runs the benchmark, writes evaluation.json and EVALUATION.md, and returns 0."""
    parser = rounds.parser("evaluation", __doc__, needs_data=False)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="separated by commas")
    args = parser.parse_args()
    names = args.networks.split(",")
    if not set(names) <= NETWORKS.keys():
        parser.error(f"--networks: of {', '.join(NETWORKS)}")
    if "W1" in names and not args.data_dir:
        parser.error("W1 needs --data_dir")
    results = rounds.begun("evaluation", RAW, args, "rounds", "seconds")
    raw = args.out / RAW
    before = json.loads(raw.read_text())["networks"] if raw.exists() else {}
    with tempfile.TemporaryFile() as errors:
        for name in names:
            before[name] = compared(name, args, errors)
            results["networks"] = {each: before[each] for each in NETWORKS if each in before}
            rounds.write(args.out, results, "EVALUATION.md", written(results))
            print("\n".join(written(results | {"networks": {name: before[name]}})[8:]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
