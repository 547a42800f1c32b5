"""Runs the README's commands on each supported version of Python and TensorFlow.

    python -m tests.versions                          every combination, the start and the tests
    python -m tests.versions --only=3.12 --start      one Python; only the start, some minutes
    python -m tests.versions --only=2.20              TensorFlow 2.20, on this Python

Each combination has a clone of the last commit and an empty environment, in a temporary directory.
The interpreters are found as `python3.11`, `python3.12` and `python3.13` on the path, or in
`~/.pyenv/versions`. TensorFlow 2.20 is installed without `constraints.txt`, which lists versions
that require 2.21. The pip of the running Python installs the packages, and needs a network.

Prints a table row for each combination when it ends, with the digest of the final weights of
quickstart.flags; pytest's output is in OUT/NAME.log. The exit status is 0 if everything passed, 1
if not, and 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
OTHER_TENSORFLOW = "2.20"
# An environment made as the README says has no pip; the Python that it was made with has one.
_BASE = getattr(sys, "_base_executable", sys.executable)


def interpreter(version: str) -> str:
    """Returns the path of an interpreter of a Python version that has `venv`; "" if none does."""
    places = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python3"))
    for place in [shutil.which(f"python{version}"), *map(str, places)]:
        if (
            place
            and not subprocess.run([place, "-c", "import venv"], capture_output=True).returncode
        ):
            return place
    return ""


def commands(readme: str) -> dict[str, str]:
    """Returns the README's commands "start" and "tests", which comments in the text name."""
    return dict(re.findall(r"<!-- (start|tests) -->\n```\n(.+)\n```", readme))


def adapted(command: str, python: str, tensorflow: str) -> str:
    """Returns a README command changed to use an interpreter and a version of TensorFlow.

    Args:
      command: shell command that creates and fills `.venv`, and then runs a program.
      python: path of the environment's interpreter.
      tensorflow: version such as "2.20"; "": the version that the project requires.
    """
    command = command.replace("python3 -m venv", f"{python} -m venv", 1)
    command = command.replace("python3 -m pip", f"{_BASE} -m pip", 1)
    if tensorflow:
        command = command.replace("-c constraints.txt", f"'tensorflow~={tensorflow}.0'", 1)
    return command


def tried(name: str, python: str, tensorflow: str, asked: list[str], out: Path) -> dict[str, str]:
    """Runs README commands in a clone of the last commit; returns how each ended, and a digest.

    Args:
      name: name of the log file.
      python: path of the interpreter.
      tensorflow: version as for `adapted`.
      asked: names of the commands.
      out: directory of the log file.

    Returns:
      "passed" or "failed STATUS" for each command, by name, and under "weights" the SHA-256 of the
      trained weights, which is "" if there is no result.
    """
    outcome = {}
    with tempfile.TemporaryDirectory(prefix="tapeline-versions-") as place:
        subprocess.run(["git", "clone", "-q", str(ROOT), place], check=True)
        found = commands(Path(place, "README.md").read_text())
        with open(out / f"{name}.log", "w") as log:
            for each in asked:
                command = adapted(found[each], python, tensorflow)
                print("+", command, file=log, flush=True)
                variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
                done = subprocess.run(
                    command, shell=True, cwd=place, env=variables, stdout=log, stderr=log
                )
                outcome[each] = "passed" if done.returncode == 0 else f"failed {done.returncode}"
        results = sorted(Path(place).glob("runs/*/result.json"))
        outcome["weights"] = json.loads(results[0].read_text())["weights_sha256"] if results else ""
    return outcome


def main() -> int:
    """Runs the selected combinations in turn, and prints the table.

    Returns 0 if everything passed, 1 if not, and 2 without an interpreter of a selected version.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.versions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*PYTHONS, OTHER_TENSORFLOW]
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--start", action="store_true", help="only the first command")
    parser.add_argument("--out", default="runs/versions", help="directory (default: %(default)s)")
    asked = parser.parse_args()
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    passed = True
    print("| Python | TensorFlow | start | tests | weights of quickstart |")
    print("|---|---|---|---|---|", flush=True)
    for name in asked.only or names:
        version, tensorflow = (here, name) if name == OTHER_TENSORFLOW else (name, "")
        python = interpreter(version)
        if not python:
            print(f"error: no python{version} on the path or in ~/.pyenv/versions", file=sys.stderr)
            return 2
        wanted = ["start"] if asked.start else ["start", "tests"]
        outcome = tried(name, python, tensorflow, wanted, out)
        passed &= all(outcome[each] == "passed" for each in wanted)
        tests = outcome.get("tests", "not run")
        print(
            f"| {version} | {tensorflow or '2.21'} | {outcome['start']} | {tests} | "
            f"{outcome['weights'][:16]} |",
            flush=True,
        )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
