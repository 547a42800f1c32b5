"""Measures what one GPU can tell in at most 8 minutes, most important first.

    python -m benchmarks.gpu --out=DIR [--data_dir=DATA_DIR]
    python -m benchmarks.gpu --out=DIR --rehearse        the same parts on the CPU, in tiny sizes

Each part is a process of its own with a time-out. After every part, DIR/results.json and DIR/GPU.md
are replaced; DIR/logs holds the output of the parts. The same command goes on where it ended: parts
that are done do not run again, those that failed or were not started do. Run nothing else at the
same time. docs/guide/gpu.md describes the measurements.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.driver import DONE, Driver, StopError, begun
from benchmarks.gpu.parts import Part, parts

_FIRST = "environment"  # the part that finds the GPU
_AT_ONCE = 2  # parts of a rehearsal, which measures nothing
_FINE = (*DONE, "not installed", "not started")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--out", required=True, type=Path, help="directory of the results")
    made.add_argument("--data_dir", default="", help="prepared TFDS data sets; MNIST is used")
    made.add_argument("--rehearse", action="store_true", help="on the CPU, in tiny sizes")
    made.add_argument("--seconds", type=float, default=480, help="of all parts (default: 480)")
    made.add_argument(
        "--part",
        action="append",
        default=[],
        metavar="NAME",
        help="run this part only, such as gpt2.bare, or the parts of a workload, such as gpt2; "
        "may be repeated",
    )
    made.add_argument("--list", action="store_true", help="print the names of the parts, and end")
    return made


def main(arguments: Sequence[str], list_parts: Callable[..., list[Part]] = parts) -> int:
    """Runs the benchmark.

    Args:
      arguments: the command line.
      list_parts: returns the parts, as `benchmarks.gpu.parts.parts`; tests give others.

    Returns:
      The exit status: 0 if no part has failed; 1 if a part has failed, was killed or ran into its
      time-out; 2 for bad input, or without a GPU; 128 + the number of a signal that ended the run.
    """
    args = parser().parse_args(arguments)
    out = args.out.absolute()
    every = list_parts(out, rehearse=args.rehearse, data_dir=args.data_dir)
    if args.list:
        print("\n".join(part.name for part in every))
        return 0
    try:
        chosen = _chosen(every, args.part)
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            return _run(args, out, every, chosen)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace, out: Path, every: list[Part], chosen: list[Part]) -> int:
    """Runs the chosen parts; returns the exit status.

    Raises:
      ValueError: if the directory has results with other settings, or if there is no GPU.
      OSError: if the results cannot be written.
    """
    with_mnist = any("--dataset=mnist" in part.command for part in every)
    settings = {"rehearsal": args.rehearse, "dataset": "mnist" if with_mnist else "digits"}
    command = f"python -m benchmarks.gpu --out=DIR{' --rehearse' if args.rehearse else ''}"
    driver = Driver(
        out,
        begun(out, command, settings),
        seconds=args.seconds,
        at_once=_AT_ONCE if args.rehearse else 1,
        environment=_environment(args.rehearse),
        order=[part.name for part in every],
    )
    try:
        if not args.rehearse:
            if not _device(driver):
                driver.results["parts"].pop(_FIRST, None)  # there may be a GPU by now
            driver.run([part for part in every if part.name == _FIRST])
            if driver.results["parts"][_FIRST]["status"] == "ok" and not _device(driver):
                raise ValueError(
                    "TensorFlow finds no GPU; install the driver and tensorflow[and-cuda], or give "
                    "--rehearse, which runs the parts on the CPU"
                )
        driver.run(chosen)
    except StopError as stopped:
        return 128 + stopped.number
    found = driver.results["parts"]
    bad = [part.name for part in chosen if found[part.name]["status"] not in _FINE]
    print(f"{len(chosen) - len(bad)} of {len(chosen)} parts have not failed: {out / 'GPU.md'}")
    return 1 if bad else 0


def _device(driver: Driver) -> str | None:
    """Returns the name of the GPU that the first part has found; None if it has found none."""
    figures = driver.results["parts"].get(_FIRST, {}).get("figures") or {}
    return figures.get("device")


def _chosen(every: list[Part], names: list[str]) -> list[Part]:
    """Returns the parts with these names, or of these workloads; all parts if there are no names.

    Raises:
      ValueError: for a name that is neither that of a part nor of a workload.
    """
    for name in names:
        if not any(name in (part.name, part.name.partition(".")[0]) for part in every):
            known = ", ".join(part.name for part in every)
            raise ValueError(f"--part={name}: there is no such part; give one of {known}")
    if not names:
        return every
    return [p for p in every if {p.name, p.name.partition(".")[0]} & set(names)]


def _environment(rehearse: bool) -> dict[str, str]:
    """Returns the environment variables of the parts: one GPU is visible, none in a rehearsal."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
    return {
        "CUDA_VISIBLE_DEVICES": "" if rehearse else visible,
        "TF_CPP_MIN_LOG_LEVEL": level,
    }


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Locks a directory in the block.

    Raises:
      ValueError: if another process has locked it.
    """
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ValueError(f"--out={out} is in use by another process: give another") from None
    try:
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
