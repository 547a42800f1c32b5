"""Measures oneDNN on and off, in float32 and in 16 bits, on this processor or on a held one.

    python -m benchmarks.processors --data_dir=DATA_DIR
    python -m benchmarks.processors --data_dir=DATA_DIR --hold=AVX2 --precisions=float32

`engine/assembly/processor_choices.py` chooses by such figures. Each combination trains in a process
of its own, as `--mode=tune` measures; the processes of a network take turns, and another one is
first in each round. A ratio is the median, over the rounds, of the ratio to oneDNN on in float32.

`--hold` limits oneDNN, TensorFlow's matrix products and XLA to an instruction set, as
`ONEDNN_MAX_CPU_ISA` and `XLA_FLAGS` do. TensorFlow's own kernels are compiled for AVX, and do not
change. TensorFlow takes oneDNN's 16-bit kernels by the processor, whatever oneDNN is limited to,
and where they are missing the process is aborted: then the table has a dash.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

import numpy as np

from engine.assembly.processor_choices import (
    ONEDNN,
    PRECISION,
    ComputeDevices,
    Network,
    chosen,
    network_of,
)
from engine.config import flags
from engine.runtime.processor import Processor, this_processor
from engine.tune.measured_process import MeasuredProcess

_IMAGES_32 = ("--dataset=cifar10",)
_TEXT = ("--dataset=tiny_shakespeare", "--task=language_model", "--context=64")
NETWORKS = {
    "cnn": ("W1: cnn, batch 128", ("--dataset=mnist", "--model=cnn")),
    "mlp": ("mlp 512,512, batch 128", ("--dataset=mnist", "--model=mlp")),
    "logistic": ("logistic, batch 128", ("--dataset=mnist", "--model=logistic")),
    "resnet": (
        "resnet 20, 32x32x3, batch 128",
        (*_IMAGES_32, "--model=resnet", "--optimizer=momentum", "--global_batch_size=128"),
    ),
    "vit": (
        "vit Ti, patches of 4x4 of 32x32x3, batch 64",
        (*_IMAGES_32, "--model=vit", "--optimizer=adamw", "--global_batch_size=64"),
    ),
    "transformer": (
        "transformer, 4 layers of 128, 64 tokens, batch 12",
        (*_TEXT, "--model=transformer", "--optimizer=adamw", "--global_batch_size=12"),
    ),
}
_PAUSE = 0.3  # seconds until the idle threads of the process before stop spinning

Key = TypeVar("Key", bound=Hashable)


def measured(
    settings: Mapping[Key, tuple[list[str], dict[str, str]]], rounds: int, seconds: float
) -> dict[Key, list[float]]:
    """Returns the steps/s of each round, by setting; [] for one that cannot train.

    Each setting trains in a process; the processes take turns.

    Args:
      settings: command-line options and environment variables of each.
      rounds: number of blocks of each setting.
      seconds: approximate duration of a block.
    """
    with contextlib.ExitStack() as stack:
        started = {}
        for name, (options, variables) in settings.items():
            process = MeasuredProcess(options, variables)
            started[name] = stack.enter_context(contextlib.closing(process))
            process.ready()
        processes = list(started.values())
        for number in range(rounds):
            offset = number % len(processes)
            for process in processes[offset:] + processes[:offset]:
                if not process.error:
                    time.sleep(_PAUSE)
                    process.measure(seconds)
    return {name: [] if process.error else process.rates for name, process in started.items()}


def _held(isa: str) -> dict[str, str]:
    """Returns environment variables that hold a process to an instruction set; {} for ""."""
    if not isa:
        return {}
    return {"ONEDNN_MAX_CPU_ISA": isa, "XLA_FLAGS": f"--xla_cpu_max_isa={isa}"}


def rows(
    what: str, network: Network, processor: Processor, found: dict[tuple[str, bool], list[float]]
) -> list[str]:
    """Returns the lines of the table of one network: a line for each precision.

    The last two columns say what `--onednn=auto` chooses, with the median ratio of its rate to the
    better one, and whether `--precision=auto` chooses this precision.

    Args:
      what: description of the network.
      network: what the choices depend on of the network.
      processor: the processor, or what it is held to.
      found: result of `measured`.
    """
    devices = ComputeDevices(processor)
    automatic = chosen(ONEDNN, devices, network, "auto")
    precise = chosen(PRECISION, devices, network, automatic)
    first = found.get(("float32", True)) or next(iter(found.values()))
    lines = []
    for precision in dict.fromkeys(precision for precision, _ in found):
        cells = []
        for onednn in (True, False):
            rates = found[precision, onednn]
            if not rates:
                cells.append("-")
                continue
            both = zip(rates, first, strict=False)
            ratio = float(np.median([rate / other for rate, other in both] or [np.nan]))
            cells.append(f"{np.median(rates):,.4g} (x{ratio:.2f})")
        choice = chosen(ONEDNN, devices, network, precision)
        rates = [found[precision, onednn] for onednn in (choice == "on", choice != "on")]
        pairs = zip(*rates, strict=False)
        ratio = float(np.median([one / max(one, other) for one, other in pairs] or [np.nan]))
        cells += [f"{choice} (x{ratio:.2f})", "yes" if precision == precise else "no"]
        lines.append(f"| {what} | {precision} | {' | '.join(cells)} |")
    return lines


def parser_of(name: str, doc: str | None, networks: Iterable[str]) -> argparse.ArgumentParser:
    """Returns a parser of the options of such a benchmark: where data are, networks, rounds.

    Args:
      name: name of the module.
      doc: its docstring.
      networks: names that `--networks` takes, separated by semicolons.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data_dir", required=True, help="where the data sets are prepared")
    parser.add_argument("--cache_dir", default="", help="directory of decoded data sets")
    parser.add_argument("--networks", default=";".join(networks), help="separated by semicolons")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a block")
    return parser


def selected(
    parser: argparse.ArgumentParser, args: argparse.Namespace, networks: Iterable[str]
) -> list[str]:
    """Returns the names of `--networks`; ends the process if one is not among `networks`."""
    names = args.networks.split(";")
    if unknown := sorted(set(names) - set(networks)):
        parser.error(f"--networks: {', '.join(unknown)}: give some of {'; '.join(networks)}")
    return names


def data_options(args: argparse.Namespace) -> list[str]:
    """Returns the command-line options of all trainings: where data are, and no held-out split."""
    places = f"--data_dir={args.data_dir}", f"--cache_dir={args.cache_dir}"
    return [*places, "--validation_split=0", "--test_split=", "--report=false"]


def main() -> int:
    """Measures the networks and prints a table; returns 0."""
    parser = parser_of("processors", __doc__, NETWORKS)
    parser.add_argument(
        "--precisions", default="float32,mixed_bfloat16", help="separated by commas"
    )
    parser.add_argument("--hold", default="", choices=("", "AVX2"), help="an instruction set")
    args = parser.parse_args()
    names = selected(parser, args, NETWORKS)
    held = _held(args.hold)
    processor = this_processor({**os.environ, **held})
    print(f"{processor.described}\n", flush=True)
    header = ("network", "precision", "oneDNN on, steps/s", "off", "auto: oneDNN", "precision")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for name in names:
        what, options = NETWORKS[name]
        shared = [*options, *data_options(args)]
        settings = {
            (precision, onednn): (
                [*shared, f"--precision={precision}"],
                {**held, "TF_ENABLE_ONEDNN_OPTS": str(int(onednn))},
            )
            for precision in args.precisions.split(",")
            for onednn in (True, False)
        }
        found = measured(settings, args.rounds, args.seconds)
        network = network_of(flags.parse(shared))
        print("\n".join(rows(what, network, processor, found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
