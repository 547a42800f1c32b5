"""Runs complete trainings in separate processes: with a flagfile, and with Keras's `fit`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.environments import python_of
from benchmarks.rounds import HERE
from engine.runtime.atomic_files import replace_file

_PAUSE = 1.0  # seconds between two processes


class RunError(RuntimeError):
    """Error of a training that failed; the message is one line."""


def keep(path: Path, run: dict[str, Any]) -> None:
    """Adds a line to a file of JSON lines; a kill leaves the file with the line or without it."""
    before = path.read_text() if path.exists() else ""
    replace_file(str(path), f"{before}{json.dumps(run)}\n")


class Trained(NamedTuple):
    """The results of a training run.

    Attributes:
      result: content of result.json.
      rows: rows of metrics.jsonl.
    """

    result: dict[str, Any]
    rows: list[dict[str, Any]]


def train(flagfile: Path, data_dir: str, seed: int, who: str, *more: str) -> Trained:
    """Trains with a flagfile, in a temporary directory; returns the results.

    Args:
      flagfile: path of the flagfile.
      data_dir: directory in which the data set is prepared.
      seed: random seed.
      who: name of the training, for the error message.
      *more: further command-line options, which have precedence.

    Raises:
      RunError: the training fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        options = (f"--data_dir={data_dir}", f"--run_dir={run_dir}", "--report=false")
        given = (f"--flagfile={flagfile}", f"--seed={seed}", *options, *more)
        told([sys.executable, "run.py", *given], who)
        result = json.loads((run_dir / "result.json").read_text())
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return Trained(result, rows)


def train_with_keras(place: Path, script: str, *given: str, who: str) -> dict[str, Any]:
    """Trains with a Keras script of benchmarks/peers and returns the JSON that it prints last.

    Args:
      place: directory with Keras's environment and mnist.npz.
      script: file name of the script.
      *given: arguments after the path of the arrays.
      who: name of the training, for the error message.

    Raises:
      RunError: the training fails.
    """
    python, arrays = python_of(place, "keras").absolute(), (place / "mnist.npz").absolute()
    said = told([str(python), str(HERE / "peers" / script), str(arrays), *given], who)
    return dict(json.loads(next(line for line in reversed(said) if line.startswith("{"))))


def told(command: list[str], who: str) -> list[str]:
    """Runs a command and returns the lines of its standard output.

    Args:
      command: command line.
      who: name of the training, for the error message.

    Raises:
      RunError: the exit status is not 0; the message has the last line of the output.
    """
    time.sleep(_PAUSE)
    environment = os.environ | {"PYTHONPATH": f"{HERE.parent}:{HERE}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env=environment)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]
        raise RunError(f"{who}: exit status {done.returncode}: {last}")
    return done.stdout.splitlines()


def parser(
    module: str, doc: str | None, seeds: int, out: Path, keras: bool = True
) -> argparse.ArgumentParser:
    """Returns a parser for a benchmark that trains once for each seed.

    Args:
      module: name of the benchmark's module.
      doc: description of the command.
      seeds: default number of seeds.
      out: default directory of the results.
      keras: whether there is an option for Keras beside it.
    """
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=doc)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--data_dir", required=True, help="where the data is prepared")
    made.add_argument("--place", type=Path, default=Path(".benchmarks"), help="environments, data")
    made.add_argument("--seeds", type=int, default=seeds, dest="rounds", help="so many, from 0")
    if keras:
        made.add_argument("--keras", action="store_true", help="Keras beside it")
    made.add_argument("--out", type=Path, default=out, help="where the results go")
    return made


def refusal(args: argparse.Namespace) -> str:
    """Returns an error message for invalid options; "" if they are valid."""
    if args.rounds < 1:
        return f"--seeds={args.rounds}: give at least 1"
    needed = (python_of(args.place, "keras"), args.place / "mnist.npz") if args.keras else ()
    for path in needed:
        if not path.exists():
            return f"--keras needs {path}: --help says how to make it"
    return "" if args.out.is_dir() else f"--out={args.out}: there is no such directory"


def failed(why: str) -> int:
    """Prints the reason of a failure to standard error and returns the exit status 1."""
    print(f"FAIL {why}", file=sys.stderr, flush=True)
    return 1
