"""Runs the commands of the docs as a user would, and demands that they print no warning.

    python -m tests.documented --data_dir=DATA_DIR              all that can run on a CPU
    python -m tests.documented --data_dir=DATA_DIR --only=predict --only=export

Commands are the lines `python run.py ...` in the code blocks of README.md, BUILD.md and
recipes/README.md, and each recipe by its flagfile. They run in the order of the document, in a
directory of its own, and are cut short: an option at the end takes a few steps instead of all.
Each must end with exit status 0, with nothing on standard error, and with no line of TensorFlow's
on standard output. They run with TF_CPP_MIN_LOG_LEVEL=2, which shows the warnings of TensorFlow's
Python side that the command holds back otherwise; the lines that TensorFlow then prints while it is
imported do not count. A run that is not asked for by `--only` still happens where a later command
needs what it leaves.

Prints a row of a table for each command as it ends and writes the rows to a JSON file. The exit
status is 0 where all commands are clean, 1 where one is not, 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.command import HANG, Command

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "BUILD.md", "recipes/README.md")
MODES = ("train", "evaluate", "predict", "export", "report", "verify", "benchmark", "tune")
# What only a machine with GPUs or several machines can run.
ELSEWHERE = ("gpu.flags", "multi_gpu.flags", "multi_worker.flags", "--cluster")
# A command of a code block: behind a prompt, or behind what installs.
COMMAND = re.compile(r"^(?:\$ |python3 .* && )?(?:\.venv/bin/)?python (run\.py .*)$", re.MULTILINE)
NOISE = re.compile(r"retracing|WARNING|Warning|^[WEFI]\d{4} |^[WEFI]0000", re.MULTILINE)
# Shows warnings of TensorFlow's Python side, which engine/startup.py else holds back.
SHOWN = {"TF_CPP_MIN_LOG_LEVEL": "2"}
# What that shows besides: what TensorFlow's libraries say of themselves while they are loaded.
LOADING = re.compile(
    r"^WARNING: All log messages before absl"
    r"|^[IE]\d{4} [\d:.]+ +\d+ (port|cudart_stub|cuda_\w+)\.cc"
)
SHORT = {"train": ("--train_steps=40",), "benchmark": ("--benchmark_steps=60",)}


@dataclass(frozen=True)
class Documented:
    """A command of a document.

    Attributes:
      place: the document, or the flagfile.
      arguments: what stands behind run.py.
    """

    place: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"run.py {shlex.join(self.arguments)}"

    @property
    def mode(self) -> str:
        """What the command does."""
        modes = [a.split("=")[1] for a in self.arguments if a.startswith("--mode=")]
        return modes[-1] if modes else "train"

    @property
    def cut_short(self) -> tuple[str, ...]:
        """The arguments, and one that takes fewer steps."""
        if "--flagfile=quickstart.flags" in self.arguments and self.mode == "train":
            return (*self.arguments, "--epochs=6")
        return (*self.arguments, *SHORT.get(self.mode, ()))


def commands_of(text: str, place: str) -> list[Documented]:
    """The commands in the code blocks of a document that a CPU can run, each once."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in COMMAND.findall(block)]
    found = [
        Documented(place, tuple(shlex.split(line, comments=True))[1:])
        for line in lines
        if not any(word in line for word in ELSEWHERE)
    ]
    return list(dict.fromkeys(found))


def documented() -> Iterator[list[Documented]]:
    """The commands of each document, and those of the recipes."""
    seen: set[tuple[str, ...]] = set()
    for place in DOCUMENTS:
        found = commands_of((ROOT / place).read_text(), place)
        # What leaves nothing in a run directory need not run for each document that names it.
        alone = {c.arguments for c in found if c.mode in ("verify", "benchmark", "tune")}
        yield [c for c in found if c.arguments not in seen & alone]
        seen |= alone
    for path in sorted(ROOT.glob("recipes/*.flags")):
        flagfile = str(path.relative_to(ROOT))
        yield [Documented(flagfile, (f"--flagfile={flagfile}",))]


@dataclass(frozen=True)
class Row:
    """A command that has run.

    Attributes:
      noise: lines that should not have been printed.
    """

    place: str
    command: str
    mode: str
    status: int
    seconds: float
    noise: list[str]

    @property
    def good(self) -> bool:
        """Whether it has ended well and said nothing else."""
        return self.status == 0 and not self.noise

    def __str__(self) -> str:
        said = f"{len(self.noise)} lines: {self.noise[0][:120]}" if self.noise else ""
        said = said.replace("|", "/")
        return f"| {self.place} | `{self.command}` | {self.status} | {self.seconds:.0f} | {said} |"


HEAD = "| in | command | status | seconds | printed besides |\n|---|---|---|---|---|"


def run(command: Documented, place: Path, user: Command, data: Sequence[str]) -> Row:
    """Runs a command.

    Args:
      command: what is run.
      place: the working directory, see `prepared`.
      user: whose environment it is.
      data: options that say where data is.
    """
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "run.py", *command.cut_short, *data],
            cwd=place,
            env=user.environment | SHOWN,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * HANG,
        )
    except subprocess.TimeoutExpired as late:
        said = [f"has not ended within {late.timeout:.0f} s"]
        return Row(command.place, str(command), command.mode, 124, late.timeout, said)
    noise = [line for line in done.stderr.splitlines() if line.strip() and not LOADING.match(line)]
    noise += [line for line in done.stdout.splitlines() if NOISE.search(line)]
    seconds = round(time.monotonic() - begun, 1)
    return Row(command.place, str(command), command.mode, done.returncode, seconds, noise)


def prepared(place: Path) -> Path:
    """A directory in which the commands find what they name: flagfiles and pictures."""
    place.mkdir(parents=True)
    for path in (ROOT / "run.py", ROOT / "recipes", *ROOT.glob("*.flags")):
        (place / path.name).symlink_to(path)
    pixels = np.zeros((40, 40), np.uint8)
    pixels[8:32, 18:23] = 255  # a one
    picture = Image.fromarray(pixels)
    (place / "photos").mkdir()
    for name in ("photos/first.png", "one.png", "some.jpg"):
        picture.save(place / name)
    np.save(place / "many.npy", np.asarray(picture.resize((28, 28)))[None, ..., None])
    return place


def needed(commands: Sequence[Documented], modes: Sequence[str]) -> list[Documented]:
    """The commands of some modes, and the trainings and the tuning in front that they build on."""
    last = max((at for at, c in enumerate(commands) if c.mode in modes), default=-1)
    before = ("train", "tune") if set(modes) - {"verify", "benchmark", "tune"} else ()
    return [c for c in commands[: last + 1] if c.mode in (*modes, *before)]


def main(arguments: list[str]) -> int:
    """Runs the commands that are asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.documented", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data_dir", required=True, help="prepared MNIST and Fashion-MNIST")
    parser.add_argument("--only", action="append", choices=MODES, help="mode; may be repeated")
    parser.add_argument("--out", default="runs/documented.json", help="(default: %(default)s)")
    asked = parser.parse_args(arguments)
    if not os.path.isdir(asked.data_dir):
        parser.error(f"--data_dir={asked.data_dir}: no such directory")
    out, data_dir = Path(asked.out).resolve(), os.path.abspath(asked.data_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        data = (f"--data_dir={data_dir}", f"--cache_dir={temporary}/cache")
        user = Command(Path(temporary) / "home", "")
        for number, commands in enumerate(documented()):
            place = prepared(Path(temporary) / str(number))
            for command in needed(commands, asked.only or MODES):
                rows.append(run(command, place, user, data))
                print(rows[-1], flush=True)
                out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(f"{sum(row.good for row in rows)} of {len(rows)} commands print nothing besides")
    return 0 if rows and all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
