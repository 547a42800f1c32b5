"""Measures the contenders of W5 to W8 in several starts of every process.

Each variant of a contender is first measured alone. Those within 5% of the fastest are then
measured in turn, because the speed of the machine changes, and the fastest is chosen. Each start
then starts all contenders again, another one first, and measures blocks of them in turn, each round
in the next order. A result is saved as soon as it is there: the same command goes on where it was
cut off, and measures nothing twice. An entry, which is a workload in a precision, is measured on
one processor and says which: figures of two are never compared. The speed of a contender is the
median over the blocks of all starts; a ratio is one of medians.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import compact, rounds
from benchmarks.environments import python_of
from benchmarks.real.specs import PRECISIONS, SPECS, Spec
from benchmarks.rounds import HERE, Answering, Contender

RAW, ENGINE = "real.json", "Tapeline"
SHORT = {  # the names that --only takes
    "engine": ENGINE,
    "bare": "bare loop",
    "fused": "bare loop, fused batch norm",
    "keras_default": "Keras fit, default",
    "keras": "Keras fit, tuned",
    "torch": "PyTorch",
    "jax": "JAX and Optax",
}
_PAUSE = 0.5  # seconds until the idle threads of the previous process stop spinning
_HOPELESS = 0.6  # of the fastest variant: slower ones are measured once
_CLOSE, _FINALS = 0.95, 3  # of the fastest variant: blocks in turn decide between those
_WITHOUT = ["env", "TF_ENABLE_ONEDNN_OPTS=0"]
_FEW_OFF = "steps_per_execution 8,"  # with or without oneDNN, calls cost the same


def contenders(spec: Spec, precision: str, place: Path, quick: bool) -> list[Contender]:
    """Returns all contenders of a workload; those with settings to tune have several variants.

    Args:
      spec: what they train.
      precision: "float32" or "bfloat16".
      place: directory of the peers' environments.
      quick: whether contenders have only the variants that are the fastest on most processors.
    """
    convolutional, compiles = spec.network in ("plain", "resnet"), spec.network == "transformer"

    def peer(name: str, variant: dict[str, Any]) -> list[str]:
        path = str(HERE / "peers" / f"real_{name}.py")
        python = str(python_of(place, name).absolute())
        return [python, path, spec.name, precision, json.dumps(variant)]

    def variants(name: str, usual: dict[str, Any], **choices: tuple) -> dict[str, list[str]]:
        choices = {key: (value,) for key, value in usual.items()} if quick else choices
        return rounds.variants(lambda variant: peer(name, variant), **choices)

    here = [sys.executable, "-m"]
    bare = [*here, "benchmarks.real.bare", spec.name, precision]
    by_hand = {"graph": bare, "XLA": [*bare, "jit"]}
    usual = {"steps_per_execution": 8, "jit": not convolutional, "input": "dataset"}
    # A step of the vision transformer takes so long that calls cost nothing.
    executions = (1, 8) if spec.network == "vit" else (1, 8, 32)
    keras = variants(
        "keras", usual, steps_per_execution=executions, jit=(False, True), input=("dataset",)
    )
    torch = variants(
        "torch",
        {"compile": compiles, "channels_last": convolutional},
        compile=(False, True),
        channels_last=(False, True) if spec.image else (False,),
    )
    if quick:
        name = "XLA" if compiles else "graph"
        by_hand = {name: by_hand[name]}
    else:
        by_hand["graph, oneDNN off"] = [*_WITHOUT, *bare]
        off = {words: each for words, each in keras.items() if words.startswith(_FEW_OFF)}
        keras |= {f"{words}, oneDNN off": [*_WITHOUT, *each] for words, each in off.items()}
    engine = {"default": [*here, "benchmarks.real.engine_loop", *bare[3:]]}
    if not (quick or convolutional):  # as tune tries it
        engine["--jit=loop"] = [*engine["default"], "--jit=loop"]
    default = peer("keras", {"steps_per_execution": 1, "jit": "auto", "input": "dataset"})
    fused = [Contender(SHORT["fused"], {"graph": [*bare, "fused"]})]
    return [
        Contender(ENGINE, engine),
        Contender("bare loop", by_hand),
        *(fused if convolutional and precision == "float32" else []),
        Contender("Keras fit, default", {"": default}),
        Contender("Keras fit, tuned", keras),
        Contender("PyTorch", torch),
        # Convolutions in a loop that XLA compiles for a CPU take 30 times as long.
        Contender(
            "JAX and Optax",
            variants("jax", {"scan": 0}, scan=(0,) if convolutional else (0, 10)),
        ),
    ]


def run(args: Namespace, names: list[str], errors: Any) -> None:
    """Measures workloads, and writes real.json and REAL.md after each result.

    Args:
      args: options of benchmarks/compare.py.
      names: names of the workloads.
      errors: file for the processes' standard error.

    Raises:
      ValueError: if an entry was measured on another machine.
    """
    results = begun(args)
    for name in names:
        for precision in args.precisions.split(","):
            entry = results["entries"].setdefault(
                f"{name} {precision}",
                {
                    "what": SPECS[name].what,
                    "machine": this_machine(),
                    "chosen": {},
                    "tried": {},
                    "starts": [],
                    "versions": {},
                },
            )
            if identity(entry["machine"]) != identity(this_machine()):
                raise ValueError(
                    f"{name} {precision} was measured on another machine, "
                    f"{told(entry['machine'])}: delete its entry in {args.out / RAW}, or give "
                    "another --out"
                )
            asked = contenders(SPECS[name], precision, args.place, args.quick)
            if args.only:
                wanted = {SHORT.get(each, each) for each in args.only.split(",")}
                asked = [each for each in asked if each.name in wanted]
            print(f"{name} {precision}: {SPECS[name].what}", flush=True)
            for contender in asked:
                chosen(contender, entry, args, errors, lambda: save(args, results))
            for start in range(args.starts):
                measured(asked, entry, start, args, errors)
                entry["date"] = time.strftime("%Y-%m-%d")
                save(args, results)
            for line in rows(entry):
                print(line, flush=True)
    save(args, results)


def begun(args: Namespace) -> dict[str, Any]:
    """Returns the results so far: those of the file, if there is one."""
    raw = args.out / RAW
    results = json.loads(raw.read_text()) if raw.exists() else {"entries": {}}
    given = f"--starts={args.starts} --rounds={args.rounds} --seconds={args.seconds:g}"
    own = {
        "command": f"python -m benchmarks.compare --workloads={','.join(SPECS)} "
        f"--precisions={','.join(PRECISIONS)} {given}",
        "raw": RAW,
        "date": time.strftime("%Y-%m-%d"),
    }
    if args.starts or "command" not in results:
        results |= own
    return results


def save(args: Namespace, results: dict[str, Any]) -> None:
    """Writes real.json and REAL.md, float32 first."""
    names = [f"{name} {precision}" for precision in PRECISIONS for name in SPECS]
    results["entries"] = dict(sorted(results["entries"].items(), key=lambda x: names.index(x[0])))
    unfinished = args.out / f"{RAW}.part"
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(compact.dumps(results) + "\n")
    os.replace(unfinished, args.out / RAW)
    (args.out / "REAL.md").write_text("\n".join(written(results)) + "\n")


def chosen(
    contender: Contender, entry: dict[str, Any], args: Namespace, errors: Any, keep: Any
) -> None:
    """Measures the variants of a contender that were not measured, and notes the fastest of all.

    Args:
      contender: the contender.
      entry: an entry of real.json.
      args: options of the command.
      errors: file for the processes' standard error.
      keep: saves the results.
    """
    tried = entry["tried"].setdefault(contender.name, {})
    before = entry["chosen"].get(contender.name)
    for words, command in contender.variants.items() if len(contender.variants) > 1 else ():
        if words in tried:
            continue
        try:
            process = Answering(command, errors)
            rate = process.fit(args.seconds / 2)
            if rate > _HOPELESS * max(tried.values(), default=0.0):
                rate = float(np.median([process.block() for _ in range(2)]))
            process.end()
        except RuntimeError as error:
            print(f"  {contender.name}, {words}: {error}", flush=True)
            rate = 0.0
        tried[words], before = rate, None
        print(f"  {contender.name}, {words}: {rate:.2f} steps/s", flush=True)
        keep()
    known = {words: tried.get(words, 0.0) for words in contender.variants}
    if before in known:
        return
    best = max(known, key=known.__getitem__)
    close = [words for words in known if known[words] > _CLOSE * known[best]] or [best]
    entry["chosen"][contender.name] = rounds.fastest_in_turn(
        contender, close, errors, blocks=_FINALS
    )
    keep()


def measured(
    asked: list[Contender], entry: dict[str, Any], start: int, args: Namespace, errors: Any
) -> None:
    """Measures a start of the contenders, unless the entry has it.

    Args:
      asked: the contenders.
      entry: an entry of real.json, to which the start is added.
      start: number of the start, from 0.
      args: options of the command.
      errors: file for the processes' standard error.
    """
    if start < len(entry["starts"]):
        known = entry["starts"][start]
    else:
        known = {}
        entry["starts"].append(known)
    variant = entry["chosen"]
    if all(known.get(each.name, {}).get("as") == variant[each.name] for each in asked):
        return
    first = start % len(asked)
    processes: dict[str, Answering] = {}
    rates: dict[str, list[float]] = {}
    for contender in (*asked[first:], *asked[:first]):
        words = variant[contender.name]
        if words not in contender.variants:
            continue
        try:
            process = Answering(contender.variants[words], errors)
            process.fit(args.seconds)
        except RuntimeError as error:
            print(f"  {contender.name}: {error}", flush=True)
            continue
        process.steps = max(process.steps, process.facts.get("at_least", 1))
        processes[contender.name], rates[contender.name] = process, []
    names = list(processes)
    for number in range(args.rounds):
        turn = number % max(1, len(names))
        for name in (*names[turn:], *names[:turn]):
            time.sleep(_PAUSE)
            rates[name].append(processes[name].block())
    for name, process in processes.items():
        final = process.end()
        known[name] = {"as": variant[name], "rates": rates[name], **final}
        entry["versions"][name] = process.facts
        told = ", ".join(f"{rate:.2f}" for rate in rates[name])
        print(f"  start {start + 1}: {name} {told} steps/s", flush=True)


def figures(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns, by contender, "rate", "lowest" and "highest" of starts, "peak_mb", "as", "starts".

    The rate is the median over the blocks of all starts; the lowest and the highest are medians of
    a start. A contender that was not measured is left out.
    """
    found = {}
    for name in SHORT.values():
        every = [start[name] for start in entry["starts"] if name in start]
        every = [each for each in every if each["as"] == entry["chosen"][name]]
        if not every:
            continue
        medians = [float(np.median(each["rates"])) for each in every]
        found[name] = {
            "rate": float(np.median([rate for each in every for rate in each["rates"]])),
            "lowest": min(medians),
            "highest": max(medians),
            "peak_mb": float(np.median([each["peak_mb"] for each in every])),
            "as": every[0]["as"] + (f", jit {every[0]['jit']}" if "jit" in every[0] else ""),
            "starts": len(every),
        }
    return found


def rows(entry: dict[str, Any]) -> list[str]:
    """Returns the lines of the table of an entry: a row per contender."""
    found = figures(entry)
    ours = found.get(ENGINE)
    lines = [
        "| | steps/s (of starts) | Tapeline is so many times as fast | peak MiB | as |",
        "|---|---|---|---|---|",
    ]
    for name, each in found.items():
        spread = f"{each['rate']:.2f} ({each['lowest']:.2f} to {each['highest']:.2f})"
        ratio = f"{ours['rate'] / each['rate']:.2f}" if ours else ""
        lines.append(f"| {name} | {spread} | {ratio} | {each['peak_mb']:,.0f} | {each['as']} |")
    return lines


def written(results: dict[str, Any]) -> list[str]:
    """Returns the lines of REAL.md for the content of real.json."""
    lines = [
        "# Real networks",
        "",
        f"Written by `{results['command']}`, {results['date']}. A speed is the median over the "
        "blocks of all starts, in brackets the lowest and the highest median of a start; a ratio "
        "is one of medians. Peak memory is that of the process, with libraries and compilation. "
        f"The raw figures are in {results['raw']}.",
    ]
    for name, entry in results["entries"].items():
        if not any(entry["starts"]):
            continue
        versions = {
            f"{package} {version}"
            for facts in entry["versions"].values()
            for package, version in facts.items()
            if package not in ("ready", "at_least")
        }
        lines += ["", f"## {name}: {entry['what']}", "", *rows(entry)]
        starts = sum(bool(start) for start in entry["starts"])
        many = f"{starts} starts" if starts > 1 else "One start"
        lines += ["", f"{many} of every process, {entry['date']}. "]
        lines[-1] += f"{told(entry['machine'])}. Versions: {', '.join(sorted(versions))}."
    return lines


def this_machine() -> dict[str, Any]:
    """Returns `described()` with "family", the processor's family and model, and "instructions"."""
    found = rounds.described() | {"instructions": instructions()}
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    words = dict(line.partition("\t")[::2] for line in reversed(lines))  # the first processor's
    return found | {"family": words.get("cpu family", "").strip("\t: ")}


def identity(machine: dict[str, Any]) -> tuple[Any, ...]:
    """Returns what two machines have in common whose figures may stand side by side."""
    return tuple(machine[key] for key in ("processor", "family", "features", "cores"))


def told(machine: dict[str, Any]) -> str:
    """Returns a machine in words."""
    return (
        f"{processor(machine)}, {machine['cores']} cores, {machine['instructions']}, "
        f"{machine['system']}"
    )


def processor(machine: dict[str, Any]) -> str:
    """Returns the name of a machine's processor, with its family if that is known."""
    family = f" (family {machine['family']})" if machine["family"] else ""
    return f"{machine['processor']}{family}"


def instructions() -> str:
    """Returns the vector and matrix instructions of this processor, if they are known."""
    path = Path("/proc/cpuinfo")
    flags = set(path.read_text().split()) if path.exists() else set()
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
    return ", ".join(words for flag, words in known.items() if flag in flags) or "unknown"


def readme_rows(results: dict[str, Any]) -> list[str]:
    """Returns the lines of the README's table: how many times as fast Tapeline is."""
    others = [name for name in SHORT.values() if name not in (ENGINE, SHORT["fused"])]
    titles = "a loop written by hand", "Keras `fit` as it is", "tuned", "PyTorch", "JAX"
    lines = [
        f"| network | processor | steps/s | {' | '.join(titles)} |",
        f"|---|---|---|{'---|' * len(titles)}",
    ]
    for name, entry in results["entries"].items():
        found = figures(entry)
        if ENGINE not in found:
            continue
        ours = found[ENGINE]["rate"]
        ratios = [f"{ours / found[each]['rate']:.2f}" if each in found else "" for each in others]
        what = entry["what"].partition(";")[0]
        workload, precision = name.split()
        cells = f"{workload}: {what}, {precision}", processor(entry["machine"])
        cells += (f"{ours:.1f}" if ours >= 10 else f"{ours:.2f}",)
        lines.append(f"| {' | '.join((*cells, *ratios))} |")
    return lines


def write_readme(readme: Path, results: dict[str, Any]) -> None:
    """Replaces the lines between the comments `networks` and `/networks` of the README.

    Raises:
      ValueError: if the README has no such comments.
    """
    text = readme.read_text()
    first, last = "<!-- networks -->\n", "<!-- /networks -->"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{readme}: no lines {first.strip()} and {last}")
    table = "\n".join(readme_rows(results))
    readme.write_text(f"{before}{first}\n{table}\n\n{last}{after}")
