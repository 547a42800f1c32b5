"""Compares the training throughput of all contenders and writes RESULTS.md.

    python -m benchmarks.environments .benchmarks
    python -m benchmarks.data DATA_DIR .benchmarks/mnist.npz
    python -m benchmarks.compare --data_dir=DATA_DIR

    python -m benchmarks.compare --workloads=W5,W6,W7,W8 --precisions=float32,bfloat16 --starts=3

The last command measures the networks that people train, which need no data: see
benchmarks/real/comparison.py. It writes REAL.md; with `--readme` also the README's table, and with
`--starts=0` only these, from what was measured.

The method is described in benchmarks/rounds.py. Afterwards Tapeline is compared with only the bare
loop, over several starts of both, for a more precise ratio. The comparison takes 90 minutes.
Workloads that are not selected keep their previous table. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import rounds
from benchmarks.environments import python_of
from benchmarks.real import comparison
from benchmarks.real.specs import PRECISIONS, SPECS
from benchmarks.rounds import HERE, Answering, Contender
from benchmarks.workloads import WORKLOADS, Workload

PAIRED = 2  # comparisons of the pair, each over several starts


def contenders(workload: Workload, place: Path, data_dir: str, quick: bool) -> list[Contender]:
    """Returns all contenders of a workload; those with settings to tune have several variants.

    Args:
      workload: what they train.
      place: directory of the peers' environments and of mnist.npz.
      data_dir: directory in which MNIST is prepared.
      quick: whether contenders have fewer variants.
    """
    arrays = str(place / "mnist.npz")

    def peer(environment: str, script: str, variant: dict[str, Any]) -> list[str]:
        path = str(HERE / "peers" / f"{script}.py")
        python = str(python_of(place, environment).absolute())
        return [python, path, workload.name, arrays, json.dumps(variant)]

    def variants(environment: str, script: str, **choices: tuple) -> dict[str, list[str]]:
        return rounds.variants(lambda variant: peer(environment, script, variant), **choices)

    here = [sys.executable, "-m"]
    executions = (1, 32) if quick else (1, 8, 32, 128, 500)
    usual = {"steps_per_execution": 1, "jit": "auto", "input": "array"}
    bare = [*here, "benchmarks.bare", workload.name, arrays]
    return [
        Contender("Tapeline", {"": [*here, "benchmarks.engine_loop", workload.name, data_dir]}),
        Contender("bare loop", {"graph": bare, "XLA": [*bare, "jit"]}),
        Contender("Keras fit, default", {"": peer("keras", "keras_fit", usual)}),
        Contender(
            "Keras fit, tuned",
            variants(
                "keras",
                "keras_fit",
                steps_per_execution=executions,
                jit=(False, True),
                input=("dataset",),
            ),
        ),
        Contender("Orbit", {"": peer("orbit", "orbit_trainer", {})}),
        Contender(
            "PyTorch",
            variants(
                "torch",
                "torch_loop",
                compile=(False,) if quick else (False, True),
                channels_last=(False, True) if workload.network == "convolutional" else (False,),
            ),
        ),
        Contender("JAX and Optax", variants("jax", "jax_optax", scan=(0, 50))),
    ]


def compared(workload: Workload, args: argparse.Namespace, errors: Any) -> dict[str, Any]:
    """Measures all contenders of a workload, and then only Tapeline and the bare loop.

    Returns:
      An entry of results.json: the dict of `rounds.compared` with "what" and "date", and, if both
      Tapeline and the bare loop were measured, "pair" (the rates of the two) and "same_bits".

    Raises:
      RuntimeError: as `rounds.compared`.
    """
    print(f"{workload.name}: {workload.what}", flush=True)
    asked = contenders(workload, args.place, args.data_dir, args.quick)
    found = rounds.compared(asked, args, errors, "steps/s")
    dated = {"what": workload.what, "date": time.strftime("%Y-%m-%d"), **found}
    if not {"Tapeline", "bare loop"} <= found["rates"].keys():
        return dated
    pair = [
        Contender(each.name, {"": each.variants[found["variants"][each.name]]})
        for each in asked[:2]
    ]
    starts = [rounds.compared(pair, args, errors, "steps/s") for _ in range(PAIRED)]
    first, second = ([rate for each in starts for rate in each["rates"][c.name]] for c in pair)
    bits = same_bits(pair, errors)
    return dated | {"pair": {"Tapeline": first, "bare loop": second}, "same_bits": bits}


def written(results: dict[str, Any]) -> list[str]:
    """Returns the lines of RESULTS.md for the content of results.json."""
    lines = rounds.heading("Results", results)
    for name, found in results["workloads"].items():
        lines += ["", f"## {name}: {found['what']}", "", *rounds.rows(found)]
        lines += ["", f"{found['date']}. {rounds.versions(found)}"]
        if "pair" in found:
            many = len(found["pair"]["Tapeline"])
            same = "the same" if found["same_bits"] else "OTHER"
            lines += [
                "",
                f"Beside the bare loop alone, {many} rounds over several starts of both: "
                f"{rounds.ratio(*found['pair'].values())}. After as many steps both hold {same} "
                "bits.",
            ]
    return lines


def same_bits(pair: list[Contender], errors: Any) -> bool:
    """Returns whether both contenders report the same SHA-256 of the weights after 500 more steps.

    Both trained the same few steps before they were ready.

    Raises:
      RuntimeError: if a process ends without an answer.
    """
    found = []
    for contender in pair:
        process = Answering(contender.variants[""], errors)
        process.take(500)
        found.append(process.end())
    return found[0] == found[1]


def main() -> int:
    """Runs the benchmark, writes results.json and RESULTS.md, and returns 0."""
    parser = rounds.parser("compare", __doc__, needs_data=False)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="of W5 to W8")
    parser.add_argument("--starts", type=int, default=3, help="of every process, of W5 to W8")
    parser.add_argument("--readme", action="store_true", help="the README's table of W5 to W8")
    args = parser.parse_args()
    names = [name for name in args.workloads.split(",") if name]
    if unknown := sorted(set(names) - {*WORKLOADS, *SPECS}):
        parser.error(f"--workloads: {', '.join(unknown)}: give {', '.join((*WORKLOADS, *SPECS))}")
    if real := [name for name in names if name in SPECS]:
        with tempfile.TemporaryFile() as errors:
            try:
                comparison.run(args, real, errors)
            except ValueError as error:
                parser.error(str(error))
    if args.readme:
        comparison.write_readme(HERE.parent / "README.md", comparison.begun(args))
    names = [name for name in names if name in WORKLOADS]
    if not names:
        return 0
    if not args.data_dir:
        parser.error("--data_dir is needed for W1 to W4")
    results = rounds.begun("compare", "results.json", args, "rounds", "seconds")
    raw = args.out / results["raw"]
    before = json.loads(raw.read_text())["workloads"] if raw.exists() else {}
    with tempfile.TemporaryFile() as errors:
        for name in names:
            found = compared(WORKLOADS[name], args, errors)
            before[name] = found
            results["workloads"] = {each: before[each] for each in WORKLOADS if each in before}
            rounds.write(args.out, results, "RESULTS.md", written(results))
            print("\n".join(rounds.rows(found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
