"""Runs the tutorials of the docs as a reader does, from an empty folder, and checks the output.

    python -m tests.tutorials                               all tutorials, with this installation
    python -m tests.tutorials --bin=DIR --only=own_model    with `tapeline` and `python` of DIR
    python -m tests.tutorials --pictures                    and writes their pictures to docs/

The code blocks of a page run in order:

- A Python block, whose first line names a file (`# my_model.py`), is written to that file.
- In a block without a language, each line is a command: `tapeline ...` or `python FILE.py`.
- A `text` block is output of the command before it, as `missing` compares it. If it starts with
  `error:`, the command fails with status 2 and prints this to standard error; otherwise the command
  succeeds and prints nothing to standard error.

The title of a page's picture is the path of the file that the reader sees, so that the picture of
the docs is a copy of that file.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cli.command import Outcome
from tests.tensorflow_log import without_log

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r'^!\[[^\]]*\]\((\w+\.png) "([^"]+)"\)$', re.MULTILINE)
FILE = re.compile(r"# ([\w/]+\.py)\n")
DECIMAL = re.compile(r"(?<![\w.])-?\d+\.\d+(?![\w.])")  # a number that depends on the processor
ABSOLUTE, RELATIVE = 0.05, 0.25  # differences of numbers that count as none
PERCENTAGE_POINTS = 5.0

Runner = Callable[[Path, Sequence[str]], Outcome]  # runs a command, given as words, in a folder


class Command(NamedTuple):
    """A command of a tutorial, and the lines that the page shows of its output."""

    words: tuple[str, ...]
    output: str = ""  # "": the page shows none

    @property
    def fails(self) -> bool:
        """Whether the page shows an error."""
        return self.output.startswith("error:")


class SourceFile(NamedTuple):
    """A Python file of a tutorial."""

    name: str
    text: str


def steps(page: str) -> list[Command | SourceFile]:
    """Returns the files and commands of a page, in order.

    Args:
      page: text of the page.

    Raises:
      ValueError: if a block is of no known kind, a Python block does not name its file, a text
        block follows no command, or a command is neither `tapeline` nor `python FILE`.
    """
    found: list[Command | SourceFile] = []
    for language, text in BLOCK.findall(page):
        if language == "python":
            name = FILE.match(text)
            if name is None:
                raise ValueError(f"a Python block does not start with # FILE.py: {text[:60]!r}")
            found.append(SourceFile(name[1], text))
        elif language == "text":
            last = found.pop() if found else None
            if not isinstance(last, Command) or last.output:
                raise ValueError(f"a text block follows no command: {text[:60]!r}")
            found.append(last._replace(output=text))
        elif language == "":
            found += map(_command, text.replace("\\\n", " ").splitlines())
        else:
            raise ValueError(f"a block of the language {language!r}: python, text or none")
    return found


def _command(line: str) -> Command:
    words = tuple(shlex.split(line, comments=True))
    if not words or words[0] not in ("tapeline", "python"):
        raise ValueError(f"a command is neither tapeline nor python FILE: {line!r}")
    return Command(words)


def missing(expected: str, printed: str) -> list[str]:
    """Returns the lines of a page's `text` block that a command has not printed in this order.

    `...` in a line stands for any text, and as a line for any lines; lines that are left out
    between two others need no mark. A number with a decimal point matches one that differs by at
    most 0.05 or a quarter, and before a percent sign by at most 5. Space at the start and the end
    of lines does not count.

    Args:
      expected: text of the block.
      printed: output of the command.
    """
    rest = iter(printed.splitlines())
    lines = [line.strip() for line in expected.splitlines()]
    return [
        line
        for line in lines
        if line and line != "..." and not any(_matches(line, other.strip()) for other in rest)
    ]


def _matches(expected: str, printed: str) -> bool:
    parts = [re.escape(part) for part in re.split(DECIMAL, expected)]
    pattern = r"(-?\d+\.\d+)".join(parts).replace(r"\.\.\.", ".*")
    found = re.fullmatch(pattern, printed)
    if not found:
        return False
    pairs = zip(DECIMAL.finditer(expected), found.groups(), strict=True)
    return all(_near(number, float(other), expected) for number, other in pairs)


def _near(number: re.Match[str], other: float, line: str) -> bool:
    value = float(number[0])
    if line[number.end() :].startswith("%"):
        return abs(value - other) <= PERCENTAGE_POINTS
    return abs(value - other) <= max(ABSOLUTE, RELATIVE * abs(value))


def faults(page: str, folder: Path, run: Runner) -> Iterator[str]:
    """Does all steps of a page in an empty folder; yields what is not as the page says.

    Args:
      page: text of the page.
      folder: the reader's folder.
      run: runs a command in the folder.
    """
    for step in steps(page):
        if isinstance(step, SourceFile):
            (folder / step.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / step.name).write_text(step.text)
            continue
        done = run(folder, step.words)
        said = f"{shlex.join(step.words)}: {done.said()}"
        if done.status != (2 if step.fails else 0) or (done.err and not step.fails):
            yield said
        elif absent := missing(step.output, done.err if step.fails else done.out):
            yield f"not printed: {absent}, by {said}"
    for name, path in PICTURE.findall(page):
        if not (folder / path).exists():
            yield f"{name}: there is no {path}"


def installed(programs: Path, home: Path) -> Runner:
    """Returns a runner of the programs `tapeline` and `python` in a directory, in new processes.

    Args:
      programs: directory of the programs, such as the `bin` of a virtual environment.
      home: home directory of the processes.
    """
    own = ("TF_", "TFDS_", "PYTHON", "TAPELINE_")  # settings of this process
    variables = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    variables |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}

    def run(folder: Path, words: Sequence[str]) -> Outcome:
        done = subprocess.run(
            [programs / words[0], *words[1:]],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        # A script that imports TensorFlow shows the lines that TensorFlow logs on import.
        err = done.stderr if words[0] == "tapeline" else ""
        return Outcome(done.returncode, done.stdout, without_log(err))

    return run


def main(arguments: list[str]) -> int:
    """Runs the selected tutorials and prints a line for each; returns 0 if all are as they say."""
    parser = argparse.ArgumentParser(prog="python -m tests.tutorials", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", action="append", choices=PAGES, help="page; may be repeated")
    parser.add_argument("--bin", default=Path(sys.executable).parent, type=Path, metavar="DIR")
    parser.add_argument("--pictures", action="store_true", help="write the pictures to docs/")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep the folders in DIR")
    asked = parser.parse_args(arguments)
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        run = installed(asked.bin.absolute(), Path(temporary) / "home")
        for name in asked.only or PAGES:
            begun, page = time.monotonic(), (FOLDER / f"{name}.md").read_text()
            folder = (asked.keep or Path(temporary)).absolute() / name
            folder.mkdir(parents=True)
            found = list(faults(page, folder, run))
            good &= not found
            result = "\n".join(found) or "as the page says"
            print(f"{name}, {time.monotonic() - begun:.0f} s: {result}", flush=True)
            for picture, path in PICTURE.findall(page):
                if asked.pictures and (folder / path).exists():
                    shutil.copy(folder / path, FOLDER / picture)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
