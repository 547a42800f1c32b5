"""Measures float32 and bfloat16, with and without XLA, by the size of a network.

    python -m benchmarks.bfloat16 --data_dir=DATA_DIR
    python -m benchmarks.bfloat16 --data_dir=DATA_DIR --networks="mlp 512,512;transformer 128"

What `--precision=auto` and, in bfloat16, `--jit=auto` choose on a CPU follows from such figures
(`engine/assembly/processor_choices.py`, `engine/assembly/compiled_step.py`). Each setting trains in
a process of its own, as `--mode=tune` measures; the processes of a network take turns, and another
one is first in each round. A ratio is the median, over the rounds, of the ratio to float32 with
`--jit=loop`. Run nothing else at the same time.
"""

from __future__ import annotations

import contextlib
import sys

import numpy as np

from benchmarks.processors import data_options, measured, parser_of, selected
from engine.assembly.processor_choices import (
    PRECISION,
    ComputeDevices,
    chosen,
    network_of,
)
from engine.config import flags
from engine.runtime.processor import this_processor
from engine.tune.measured_process import MeasuredProcess

SETTINGS = {  # column -> options
    "float32, XLA": ("--precision=float32", "--jit=loop"),
    "float32": ("--precision=float32", "--jit=off"),
    "bfloat16": ("--precision=mixed_bfloat16", "--jit=off"),
    "bfloat16, XLA": ("--precision=mixed_bfloat16", "--jit=loop"),
}
_FIRST = "float32, XLA"


def _mlp(hidden: str, batch: int) -> tuple[str, ...]:
    shape = f"--hidden={hidden}", f"--global_batch_size={batch}"
    return "--dataset=mnist", "--model=mlp", *shape


def _transformer(width: int, batch: int = 12, layers: int = 4) -> tuple[str, ...]:
    text = "--dataset=tiny_shakespeare", "--task=language_model", "--context=64"
    shape = f"--model.width={width}", f"--model.layers={layers}", f"--global_batch_size={batch}"
    return *text, "--model=transformer", "--optimizer=adamw", *shape


NETWORKS = {
    **{
        f"mlp {hidden}": _mlp(hidden, 128)
        for hidden in ("64,64", "256,256", "512,512", "1024,1024", "2048,2048")
    },
    "mlp 512,512, batch 32": _mlp("512,512", 32),
    "mlp 1024,1024, batch 32": _mlp("1024,1024", 32),
    **{f"transformer {width}": _transformer(width) for width in (64, 128, 192, 256, 384)},
    "transformer 128, 64 rows": _transformer(128, batch=64),
    "transformer 768, 2 layers": _transformer(768, layers=2),
}


def automatic(options: list[str]) -> str:
    """Returns the setting that `--jit=auto` has in bfloat16, such as "bfloat16, XLA"."""
    process = MeasuredProcess([*options, "--precision=mixed_bfloat16"])
    with contextlib.closing(process):
        process.ready()
        return "bfloat16" if process.metadata.get("jit") == "off" else "bfloat16, XLA"


def row(what: str, products: float, precision: str, bfloat16: str, found: dict) -> str:
    """Returns the line of a network.

    Args:
      what: description of the network.
      products: multiplications of a product, as `Network.products`.
      precision: what `--precision=auto` chooses.
      bfloat16: result of `automatic`.
      found: result of `measured`.
    """
    first = found[_FIRST]
    cells = [what, f"{products / 1e6:.1f}"]
    for name, rates in found.items():
        ratios = [rate / other for rate, other in zip(rates, first, strict=False) if other]
        told = f"x{np.median(ratios):.2f}" if ratios else "-"
        if name == _FIRST and rates:
            told = f"{np.median(rates):,.4g}"
        cells.append(told)
    return f"| {' | '.join((*cells, precision, bfloat16))} |"


def main() -> int:
    """Measures the networks and prints a table; returns 0."""
    parser = parser_of("bfloat16", __doc__, NETWORKS)
    args = parser.parse_args()
    names = selected(parser, args, NETWORKS)
    print(f"{this_processor().described}\n", flush=True)
    header = ("network", "product, millions", f"{_FIRST}, steps/s", *list(SETTINGS)[1:])
    header += ("--precision=auto", "in bfloat16, --jit=auto")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for name in names:
        options = [*NETWORKS[name], *data_options(args)]
        network = network_of(flags.parse(options))
        precision = chosen(PRECISION, ComputeDevices(this_processor()), network, "on")
        settings = {name: ([*options, *setting], {}) for name, setting in SETTINGS.items()}
        found = measured(settings, args.rounds, args.seconds)
        print(row(name, network.products, precision, automatic(options), found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
