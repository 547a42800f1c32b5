"""Takes blocks of every contender in turn and writes the table.

    python -m benchmarks.environments .benchmarks
    python -m benchmarks.data DATA_DIR .benchmarks/mnist.npz
    python -m benchmarks.compare --data_dir=DATA_DIR

Each contender is a process that sleeps until it is asked. Of those with variants each variant is
tried alone first, and the fastest goes on. Then rounds: a block of each, who comes first changing
from round to round. What is compared is a median of ratios of blocks that lie beside each other.
Run nothing beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.environments import python_of
from benchmarks.workloads import WORKLOADS, Workload
from engine.benchmark.blocks import interleaved
from engine.benchmark.machine import described

HERE = Path(__file__).parent
SECONDS = 3.0  # of a block, about


class Contender(NamedTuple):
    """Something that trains.

    name: in the table.
    variants: what can be chosen, in words -> the command.
    """

    name: str
    variants: dict[str, list[str]]


class Answering:
    """A contender's process.

    Args:
      command: of it.
      errors: a file for what it prints besides.
    """

    def __init__(self, command: list[str], errors: Any) -> None:
        environment = os.environ | {"PYTHONPATH": f"{HERE.parent}:{HERE}"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=HERE.parent,
            env=environment,
        )
        self.facts = self._answer()
        self.steps = 1

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"exit status {self._process.wait()}")

    def take(self, steps: int) -> float:
        """Seconds of so many steps."""
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
        return self._answer()["seconds"]

    def fit(self, seconds: float) -> None:
        """Finds how many steps take so long."""
        while (taken := self.take(self.steps)) < seconds / 3:
            self.steps *= 2
        self.steps = max(1, round(self.steps * seconds / taken))

    def block(self) -> float:
        """Steps a second over a block."""
        return self.steps / self.take(self.steps)

    def end(self) -> Any:
        """Ends it; what it shows for its work."""
        assert self._process.stdin is not None
        print(0, file=self._process.stdin, flush=True)
        final = self._answer()["final"]
        self._process.wait()
        return final


def contenders(workload: Workload, place: Path, data_dir: str, quick: bool) -> list[Contender]:
    """All of them, for one workload."""
    arrays = str(place / "mnist.npz")

    def peer(environment: str, script: str, variant: dict[str, Any]) -> list[str]:
        path = str(HERE / "peers" / f"{script}.py")
        python = str(python_of(place, environment).absolute())
        return [python, path, workload.name, arrays, json.dumps(variant)]

    def variants(environment: str, script: str, **choices: tuple) -> dict[str, list[str]]:
        made = {}
        for chosen in itertools.product(*choices.values()):
            variant = dict(zip(choices, chosen, strict=True))
            words = ", ".join(f"{name} {value}" for name, value in variant.items())
            made[words] = peer(environment, script, variant)
        return made

    here = [sys.executable, "-m"]
    executions = (1, 32) if quick else (1, 8, 32, 128, 500)
    usual = {"steps_per_execution": 1, "jit": "auto", "input": "array"}
    bare = [*here, "benchmarks.bare", workload.name, arrays]
    return [
        Contender("Tapeline", {"": [*here, "benchmarks.engine_loop", workload.name, data_dir]}),
        Contender("bare loop", {"": bare}),
        Contender("Keras fit, default", {"": peer("keras", "keras_fit", usual)}),
        Contender(
            "Keras fit, tuned",
            variants(
                "keras",
                "keras_fit",
                steps_per_execution=executions,
                jit=(False, True),
                input=("array",) if quick else ("array", "dataset"),
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


def fastest(contender: Contender, errors: Any) -> tuple[str, dict[str, float]]:
    """The variant to go on with, and the steps a second of each."""
    rates: dict[str, float] = {}
    if len(contender.variants) == 1:
        return next(iter(contender.variants)), rates
    for words, command in contender.variants.items():
        try:
            process = Answering(command, errors)
            process.fit(SECONDS / 2)
            rates[words] = float(np.median([process.block() for _ in range(3)]))
            process.end()
        except RuntimeError as error:
            rates[words] = 0.0
            print(f"  {contender.name}, {words}: {error}", flush=True)
            continue
        print(f"  {contender.name}, {words}: {rates[words]:,.1f} steps/s", flush=True)
    return max(rates, key=rates.__getitem__), rates


def compared(workload: Workload, args: argparse.Namespace, errors: Any) -> dict[str, Any]:
    """One workload: steps a second of each contender, round by round."""
    print(f"{workload.name}: {workload.what}", flush=True)
    asked = contenders(workload, args.place, args.data_dir, args.quick)
    if args.only:
        asked = [each for each in asked if each.name in args.only.split(",")]
    chosen, tried = {}, {}
    for contender in asked:
        chosen[contender.name], tried[contender.name] = fastest(contender, errors)
    processes = {
        contender.name: Answering(contender.variants[chosen[contender.name]], errors)
        for contender in asked
    }
    for process in processes.values():
        process.fit(args.seconds)
        process.block()
    rates: dict[str, list[float]] = {name: [] for name in processes}
    blocks = {name: process.block for name, process in processes.items()}
    for number, found in enumerate(interleaved(blocks, args.rounds), 1):
        for name, rate in found.items():
            rates[name].append(rate)
        words = ", ".join(f"{name} {rate:,.1f}" for name, rate in found.items())
        print(f"  round {number} of {args.rounds}: {words}", flush=True)
    return {
        "what": workload.what,
        "rates": rates,
        "variants": chosen,
        "tried": tried,
        "versions": {name: process.facts for name, process in processes.items()},
        "final": {name: process.end() for name, process in processes.items()},
    }


def rows(found: dict[str, Any]) -> Iterator[str]:
    """The table of one workload."""
    rates = found["rates"]
    yield "| | steps/s | Tapeline is so many times as fast | as |"
    yield "|---|---|---|---|"
    for name, each in rates.items():
        ratios = np.divide(rates["Tapeline"], each)
        p10, median, p90 = np.percentile(ratios, [10, 50, 90])
        cells = f"{np.median(each):,.1f} | {median:.2f} ({p10:.2f} to {p90:.2f})"
        yield f"| {name} | {cells} | {found['variants'][name]} |"


def written(results: dict[str, Any]) -> str:
    """RESULTS.md."""
    machine = results["machine"]
    lines = [
        "# Results",
        "",
        f"Written by `{results['command']}`, {results['date']}. Medians of {results['rounds']} "
        "rounds; a ratio is the median, with tenth and ninetieth percentile, of the ratios of "
        "blocks that lie beside each other in time. The raw figures are in results.json.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}.",
    ]
    for name, found in results["workloads"].items():
        versions = {
            f"{package} {version}"
            for facts in found["versions"].values()
            for package, version in facts.items()
            if package != "ready"
        }
        lines += ["", f"## {name}: {found['what']}", "", *rows(found)]
        lines += ["", f"Versions: {', '.join(sorted(versions))}."]
        if {"Tapeline", "bare loop"} <= found["final"].keys() and found["same_bits"] is not None:
            same = "the same" if found["same_bits"] else "OTHER"
            lines += ["", f"After as many steps Tapeline and the bare loop hold {same} bits."]
    return "\n".join(lines) + "\n"


def same_bits(workload: Workload, args: argparse.Namespace, errors: Any) -> bool:
    """Whether the engine and the bare loop hold the same weights after 500 steps."""
    found = []
    for contender in contenders(workload, args.place, args.data_dir, True)[:2]:
        process = Answering(contender.variants[""], errors)
        process.take(500)
        found.append(process.end())
    return found[0] == found[1]


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data_dir", required=True, help="where MNIST is prepared")
    parser.add_argument(
        "--place", type=Path, default=Path(".benchmarks"), help="environments, data"
    )
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a block")
    parser.add_argument("--only", default="", help="contenders, separated by commas")
    parser.add_argument("--quick", action="store_true", help="fewer variants")
    parser.add_argument("--out", type=Path, default=HERE, help="where the results go")
    args = parser.parse_args()
    results: dict[str, Any] = {
        "command": "python -m benchmarks.compare",
        "date": time.strftime("%Y-%m-%d"),
        "machine": described(),
        "rounds": args.rounds,
        "workloads": {},
    }
    with tempfile.TemporaryFile() as errors:
        for name in args.workloads.split(","):
            found = compared(WORKLOADS[name], args, errors)
            both = {"Tapeline", "bare loop"} <= found["rates"].keys()
            found["same_bits"] = same_bits(WORKLOADS[name], args, errors) if both else None
            results["workloads"][name] = found
            (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
            (args.out / "RESULTS.md").write_text(written(results))
            print("\n".join(rows(found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
