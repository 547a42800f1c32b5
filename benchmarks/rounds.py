"""Measures the speed of contenders in turn and formats the table of the results.

Each contender is a process that sleeps until it gets a request. A block is a request for as many
steps as take about three seconds. If a contender has several variants, each variant is first
measured while no other runs. Because the speed of the machine changes with time, up to three of the
fastest variants are then measured in turn, and the fastest of them is chosen. Each round then
measures a block of each contender, in a new random order. The rounds are divided among three starts
of all processes. Another contender starts first each time: the process that starts before the
others is up to 3% slower. The ratio of two contenders is the median, over the rounds, of the ratio
of their rates in a round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import compact
from engine.runtime.startup import import_tensorflow

import_tensorflow()  # without its messages on standard error

from engine.benchmark.machine import described  # noqa: E402

HERE = Path(__file__).parent
SECONDS = 3.0  # approximate duration of a block
_STARTS = 3  # of every process: its speed depends on its memory layout
_FINALISTS, _FINALS = 3, 5  # variants that are measured in turn, and how often
_PAUSE = 0.5  # seconds until the idle threads of the previous process stop spinning


def environment() -> dict[str, str]:
    """Returns the environment of a contender's process, which finds the modules of benchmarks/."""
    return os.environ | {"PYTHONPATH": f"{HERE.parent}:{HERE}"}


class Contender(NamedTuple):
    """An implementation whose speed is measured.

    Attributes:
      name: name in the table.
      variants: command line of the process of each variant, by the description of its settings.
    """

    name: str
    variants: dict[str, list[str]]


class Answering:
    """A contender's process, and the client for the requests that benchmarks/serve.py answers.

    The constructor starts the process and waits until it is ready. The constructor and all methods
    raise a RuntimeError if the process ends without an answer.

    Args:
      command: command line of the process.
      errors: file for the process's standard error.

    Attributes:
      facts: first answer of the process: package versions, and `at_least` if blocks have a minimum.
      steps: number of steps of a block.
    """

    def __init__(self, command: list[str], errors: Any) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=HERE.parent,
            env=environment(),
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
        """Requests `steps` steps and returns the steps/s; the contender may run more steps."""
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
        found = self._answer()
        return found["steps"] / found["seconds"]

    def fit(self, seconds: float) -> float:
        """Sets `self.steps` so that a block takes about `seconds`; returns the measured steps/s."""
        while self.steps / (rate := self.take(self.steps)) < seconds / 3:
            self.steps *= 2
        self.steps = max(1, round(rate * seconds))
        return rate

    def block(self) -> float:
        """Runs warm-up steps, an eighth of a block, and then a block; returns the block's steps/s.

        The warm-up consumes data that was prefetched while the process slept, and fills the caches.
        """
        self.take(-(-self.steps // 8))
        return self.take(self.steps)

    def end(self) -> Any:
        """Ends the process and returns the final result that it reports."""
        assert self._process.stdin is not None
        print(0, file=self._process.stdin, flush=True)
        final = self._answer()["final"]
        self._process.wait()
        return final


def variants(
    command: Callable[[dict[str, Any]], list[str]], **choices: Iterable[Any]
) -> dict[str, list[str]]:
    """Returns the command line of each combination of settings, by a description of the settings.

    Args:
      command: returns the command line for the settings of a combination, given as a dict.
      **choices: values to combine, by the name of the setting.
    """
    made = {}
    for chosen in itertools.product(*choices.values()):
        variant = dict(zip(choices, chosen, strict=True))
        made[", ".join(f"{name} {value}" for name, value in variant.items())] = command(variant)
    return made


def compared(
    asked: list[Contender], args: argparse.Namespace, errors: Any, unit: str, each: int = 1
) -> dict[str, Any]:
    """Measures contenders in turn and prints the rates of each round.

    Args:
      asked: the contenders; those that `args.only` does not name are left out, unless it is "".
      args: the options of `parser`; `args.rounds` is the number of rounds.
      errors: file for the processes' standard error.
      unit: unit of the rates, such as "steps/s".
      each: number by which steps/s are multiplied for this unit, such as the examples of a step.

    Returns:
      A dict with "unit" and five dicts by contender: "rates" (a list, one rate per round),
      "variants" (the chosen one), "tried" (the rate of each variant), "versions" (the facts of the
      process) and "final" (the last result of the process).

    Raises:
      RuntimeError: if no variant of a contender runs, or a process ends without an answer.
    """
    if args.only:
        asked = [contender for contender in asked if contender.name in args.only.split(",")]
    chosen, tried = {}, {}
    for contender in asked:
        chosen[contender.name], tried[contender.name] = _fastest(contender, errors, unit, each)
    rates: dict[str, list[float]] = {contender.name: [] for contender in asked}
    shuffled = np.random.default_rng(0)
    processes: dict[str, Answering] = {}
    for number in range(args.rounds):
        if number % -(-args.rounds // _STARTS) == 0:
            for process in processes.values():
                process.end()
            first = number * _STARTS // args.rounds % len(asked)
            processes = {
                contender.name: Answering(contender.variants[chosen[contender.name]], errors)
                for contender in (*asked[first:], *asked[:first])
            }
            for process in processes.values():
                process.fit(args.seconds)
                process.steps = max(process.steps, process.facts.get("at_least", 1))
                process.block()
        for name in shuffled.permutation(list(processes)):  # each time after another contender
            time.sleep(_PAUSE)
            rates[name].append(each * processes[name].block())
        words = ", ".join(f"{name} {every[-1]:,.1f}" for name, every in rates.items())
        print(f"  round {number + 1} of {args.rounds}: {words}", flush=True)
    return {
        "unit": unit,
        "rates": rates,
        "variants": chosen,
        "tried": tried,
        "versions": {name: process.facts for name, process in processes.items()},
        "final": {name: process.end() for name, process in processes.items()},
    }


def _fastest(
    contender: Contender, errors: Any, unit: str, each: int
) -> tuple[str, dict[str, float]]:
    """Returns the description of a contender's fastest variant, and the rates of all variants.

    A variant that fails has the rate 0. A single variant is not measured: the rates are empty.

    Raises:
      RuntimeError: if no variant runs.
    """
    rates: dict[str, float] = {}
    if len(contender.variants) == 1:
        return next(iter(contender.variants)), rates
    for words, command in contender.variants.items():
        try:
            process = Answering(command, errors)
            first = each * process.fit(SECONDS / 2)
            hopeless = first < max(rates.values(), default=0.0) / 2
            blocks = [] if hopeless else [each * process.block() for _ in range(3)]
            rates[words] = float(np.median(blocks or [first]))
            process.end()
        except RuntimeError as error:
            rates[words] = 0.0
            print(f"  {contender.name}, {words}: {error}", flush=True)
            continue
        print(f"  {contender.name}, {words}: {rates[words]:,.1f} {unit}", flush=True)
    finalists = sorted(rates, key=rates.__getitem__, reverse=True)[:_FINALISTS]
    finalists = [words for words in finalists if rates[words] > rates[finalists[0]] / 2]
    if not finalists:
        raise RuntimeError(f"{contender.name}: no variant runs")
    return fastest_in_turn(contender, finalists, errors, unit, each), rates


def fastest_in_turn(
    contender: Contender,
    finalists: list[str],
    errors: Any,
    unit: str = "steps/s",
    each: int = 1,
    blocks: int = _FINALS,
) -> str:
    """Returns the finalist with the highest median rate, measured in blocks that take turns.

    Args:
      contender: the contender.
      finalists: descriptions of some of its variants.
      errors: file for the processes' standard error.
      unit: unit of the rates.
      each: number by which steps/s are multiplied for this unit.
      blocks: number of blocks of each finalist.
    """
    if len(finalists) == 1:
        return finalists[0]
    processes = {words: Answering(contender.variants[words], errors) for words in finalists}
    for process in processes.values():
        process.fit(SECONDS / 2)
    found: dict[str, list[float]] = {words: [] for words in finalists}
    for _ in range(blocks):
        for words, process in processes.items():
            time.sleep(_PAUSE)
            found[words].append(each * process.block())
    for process in processes.values():
        process.end()
    medians = {words: float(np.median(rates)) for words, rates in found.items()}
    told = "; ".join(f"{words}: {rate:,.1f}" for words, rate in medians.items())
    print(f"  {contender.name}, in turn: {told} {unit}", flush=True)
    return max(medians, key=medians.__getitem__)


def rows(found: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the table of `found`, a result of `compared`: a row per contender."""
    rates = found["rates"]
    yield f"| | {found['unit']} | Tapeline is so many times as fast | as |"
    yield "|---|---|---|---|"
    for name, each in rates.items():
        compared = ratio(rates["Tapeline"], each) if "Tapeline" in rates else ""
        cells = f"{np.median(each):,.1f} | {compared}"
        yield f"| {name} | {cells} | {found['variants'][name]} |"


def ratio(rates: list[float], others: list[float]) -> str:
    """Formats the ratios `rates` / `others`: the median, and the 10th and 90th percentiles."""
    p10, median, p90 = np.percentile(np.divide(rates, others), [10, 50, 90])
    return f"{median:.2f} ({p10:.2f} to {p90:.2f})"


def versions(found: dict[str, Any]) -> str:
    """Returns a line with the package versions of all contenders in a result of `compared`."""
    named = {
        f"{package} {version}"
        for facts in found["versions"].values()
        for package, version in facts.items()
        if package not in ("ready", "at_least")
    }
    return f"Versions: {', '.join(sorted(named))}."


def heading(title: str, results: dict[str, Any]) -> list[str]:
    """Returns the first lines of a Markdown file of results: title, command, method, machine."""
    machine = results["machine"]
    features = f" ({machine['features']})" if "features" in machine else ""
    return [
        f"# {title}",
        "",
        f"Written by `{results['command']}`, {results['date']}. Medians of {results['rounds']} "
        "rounds; a ratio is the median, with tenth and ninetieth percentile, of the ratios of "
        f"blocks that lie beside each other in time. The raw figures are in {results['raw']}.",
        "",
        f"Machine: {machine['processor']}{features}, {machine['cores']} cores, "
        f"{machine['system']}.",
    ]


def parser(module: str, doc: str | None, needs_data: bool = True) -> argparse.ArgumentParser:
    """Returns a parser with the options common to all comparisons.

    Args:
      module: name of the benchmark's module.
      doc: description of the command, printed as it is by `--help`.
      needs_data: whether `--data_dir` is required.
    """
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=doc)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--data_dir", required=needs_data, help="where MNIST is prepared")
    made.add_argument("--place", type=Path, default=Path(".benchmarks"), help="environments, data")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--seconds", type=float, default=SECONDS, help="of a block")
    made.add_argument("--only", default="", help="contenders, separated by commas")
    made.add_argument("--quick", action="store_true", help="fewer variants")
    made.add_argument("--out", type=Path, default=HERE, help="where the results go")
    return made


def begun(module: str, raw: str, args: argparse.Namespace, *options: str) -> dict[str, Any]:
    """Returns the first entries of the results: command, raw, date, machine and rounds.

    Args:
      module: name of the benchmark's module.
      raw: file name of the results as JSON.
      args: options of the command line.
      *options: names of numeric options, which the command repeats with their values.
    """
    given = [f"--{name}={getattr(args, name):g}" for name in options]
    return {
        "command": " ".join([f"python -m benchmarks.{module} --data_dir=DATA_DIR", *given]),
        "raw": raw,
        "date": time.strftime("%Y-%m-%d"),
        "machine": described(),
        "rounds": args.rounds,
    }


def write(out: Path, results: dict[str, Any], table: str, lines: list[str]) -> None:
    """Writes `results` as JSON to the file that its "raw" names, and `lines` to the file `table`.

    Both files are in the directory `out`, which is created if it does not exist.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / results["raw"]).write_text(compact.dumps(results) + "\n")
    (out / table).write_text("\n".join(lines) + "\n")
