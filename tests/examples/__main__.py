"""Runs each check on each example, and prints the results as a Markdown table.

    python -m tests.examples [--only=NAME] [--check=NAME]

A failure is written below the table; the exit status is then 1. The name of an example is that of
the file. keras_applications.py has two examples, MobileNetV2 and EfficientNetB0: for these, set the
environment variable TEST_HANG=3600, the seconds after which a process counts as hung, because their
verification takes longer than the default of 300 seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.cli.command import Command
from tests.examples.jobs import JOBS
from tests.examples.matrix import CHECKS, Matrix


def main() -> int:
    """Runs the checks and prints the table; returns the exit status: 1 if one failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.examples")
    parser.add_argument("--only", action="append", choices=JOBS, help="name of an example")
    parser.add_argument("--check", action="append", choices=CHECKS, help="name of a check")
    given = parser.parse_args()
    names, checks = given.only or list(JOBS), given.check or list(CHECKS)
    print(f"| example | {' | '.join(checks)} | seconds |", flush=True)
    print(f"|{'---|' * (len(checks) + 2)}")
    failures = []
    with tempfile.TemporaryDirectory(prefix="tapeline-examples-") as folder:
        place = Path(folder)
        (place / "home").mkdir()
        command = Command(place / "home", str(place / "cache"))
        with command.warmed(place) as warm:
            for name in names:
                if not JOBS[name].available:
                    print(f"| {name} | no data |", flush=True)
                    continue
                started, cells = time.monotonic(), []
                (place / name).mkdir()
                matrix = Matrix(JOBS[name], command, warm, place / name)
                for check in checks:
                    try:
                        cells.append(f"pass {CHECKS[check](matrix)}".strip())
                    except Exception as error:
                        cells.append("FAIL")
                        failures.append(f"{name}, {check}: {type(error).__name__}: {error}")
                        print(failures[-1], file=sys.stderr, flush=True)
                seconds = time.monotonic() - started
                print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)
    for failure in failures:
        print(f"\n{failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
