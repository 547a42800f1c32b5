"""Runs the commands of the docs as a user does, and checks that they print no warning.

    python -m tests.documented --data_dir=DATA_DIR              all commands that run on a CPU
    python -m tests.documented --data_dir=DATA_DIR --only=predict --only=export

Commands are the lines `python run.py ...` in the code blocks of README.md, docs/ and
recipes/README.md, and one for each recipe's flagfile. They run in the order of the documents, in
temporary directories, and are shortened: an option at the end limits the number of steps. Each
command must exit with status 0, print nothing to standard error, and no TensorFlow line to standard
output. TF_CPP_MIN_LOG_LEVEL=2 shows the warnings of TensorFlow's Python code that the command
suppresses otherwise; lines that TensorFlow prints during import are ignored. A command outside
`--only` still runs if a later command needs its output.

Prints a table row for each command when it ends and writes the rows to a JSON file. The exit status
is 0 if all commands are clean, 1 if one is not, and 2 for bad input.
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
from tests.tensorflow_log import without_log

ROOT = Path(__file__).parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = (("README.md", *PAGES), ("recipes/README.md",))  # each tuple shares a directory
MODES = (
    *("train", "evaluate", "predict", "export", "report"),
    *("inspect", "verify", "benchmark", "tune"),
)
# Commands with these words need GPUs or several machines.
ELSEWHERE = ("gpu.flags", "multi_gpu.flags", "multi_worker.flags", "--cluster")
# A command in a code block, optionally after a prompt or an installation command.
COMMAND = re.compile(r"^(?:\$ |python3 .* && )?(?:\.venv/bin/)?python (run\.py .*)$", re.MULTILINE)
NOISE = re.compile(r"retracing|WARNING|Warning|^[WEFI]\d{4} |^[WEFI]0000", re.MULTILINE)
# Shows warnings of TensorFlow's Python code, which engine/runtime/startup.py suppresses otherwise.
SHOWN = {"TF_CPP_MIN_LOG_LEVEL": "2"}
# Lines that TensorFlow's libraries print at this level when they are loaded.
LOADING = re.compile(
    r"^WARNING: All log messages before absl"
    r"|^[IE]\d{4} [\d:.]+ +\d+ (port|cudart_stub|cuda_\w+)\.cc"
)
SHORT = {"train": ("--train_steps=40",), "benchmark": ("--benchmark_steps=60",)}


@dataclass(frozen=True)
class Documented:
    """A `python run.py` command in a document.

    Attributes:
      place: path of the document or flagfile.
      arguments: arguments of run.py.
    """

    place: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"run.py {shlex.join(self.arguments)}"

    @property
    def mode(self) -> str:
        """The value of `--mode`; "train" if the option is not given."""
        modes = [a.split("=")[1] for a in self.arguments if a.startswith("--mode=")]
        return modes[-1] if modes else "train"

    @property
    def cut_short(self) -> tuple[str, ...]:
        """The arguments, followed by an option that limits the steps, if the mode has one."""
        if "--flagfile=quickstart.flags" in self.arguments and self.mode == "train":
            return (*self.arguments, "--epochs=6")
        return (*self.arguments, *SHORT.get(self.mode, ()))


def commands_of(text: str, place: str) -> list[Documented]:
    """Returns the distinct commands in a document's code blocks that can run on a CPU."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in COMMAND.findall(block)]
    found = [
        Documented(place, tuple(shlex.split(line, comments=True))[1:])
        for line in lines
        if not any(word in line for word in ELSEWHERE)
    ]
    return list(dict.fromkeys(found))


def documented() -> Iterator[list[Documented]]:
    """Yields lists of commands, each of which runs in a separate directory.

    Commands of README.md and docs/ share a directory, as do those of recipes/README.md; each
    flagfile of a recipe is a list of one command.
    """
    for places in DOCUMENTS:
        first: dict[tuple[str, ...], Documented] = {}
        for place in places:
            for command in commands_of((ROOT / place).read_text(), place):
                first.setdefault(command.arguments, command)
        yield list(first.values())
    for path in sorted(ROOT.glob("recipes/*.flags")):
        flagfile = str(path.relative_to(ROOT))
        yield [Documented(flagfile, (f"--flagfile={flagfile}",))]


@dataclass(frozen=True)
class Row:
    """The result of running a command.

    Attributes:
      place: path of the document or flagfile.
      command: the command line.
      mode: the command's mode.
      status: exit status.
      seconds: duration.
      noise: unexpected lines of output.
    """

    place: str
    command: str
    mode: str
    status: int
    seconds: float
    noise: list[str]

    @property
    def good(self) -> bool:
        """Whether the command succeeded and printed no unexpected line."""
        return self.status == 0 and not self.noise

    def __str__(self) -> str:
        said = f"{len(self.noise)} lines: {self.noise[0][:120]}" if self.noise else ""
        said = said.replace("|", "/")
        return f"| {self.place} | `{self.command}` | {self.status} | {self.seconds:.0f} | {said} |"


HEAD = "| in | command | status | seconds | printed besides |\n|---|---|---|---|---|"


def run(command: Documented, place: Path, user: Command, data: Sequence[str]) -> Row:
    """Runs a command, shortened, and returns the result; status 124 means that it timed out.

    Args:
      command: the command.
      place: working directory, made by `prepared`.
      user: provides the environment variables.
      data: options for the data and cache directories.
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
    noise = [
        line
        for line in without_log(done.stderr).splitlines()
        if line.strip() and not LOADING.match(line)
    ]
    noise += [line for line in done.stdout.splitlines() if NOISE.search(line)]
    seconds = round(time.monotonic() - begun, 1)
    return Row(command.place, str(command), command.mode, done.returncode, seconds, noise)


def prepared(place: Path) -> Path:
    """Creates and returns a working directory with the flagfiles and images of the commands."""
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
    """Returns the commands of some modes, and the train and tune commands that they depend on."""
    last = max((at for at, c in enumerate(commands) if c.mode in modes), default=-1)
    before = ("train", "tune") if set(modes) - {"verify", "benchmark", "tune"} else ()
    return [c for c in commands[: last + 1] if c.mode in (*modes, *before)]


def main(arguments: list[str]) -> int:
    """Runs the selected commands; returns 0 if all are clean, otherwise 1."""
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
