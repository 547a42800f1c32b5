"""Mutation testing of the laws: applies each break to a copy of the code, and runs tests there.

    python -m tests.laws.mutate              all breaks, one process per core
    python -m tests.laws.mutate L1 golden    the breaks of some laws
    python -m tests.laws.mutate --table > tests/laws/README.md

A detected break shows that the tests of the broken law can fail. The exit status is 1 if a break is
not detected, or if the code has changed so that a break no longer applies.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import prepared
from tests.laws.breaks import BREAKS, LAWS, Break

ROOT = Path(__file__).parents[2]
HANG = 1200  # timeout of a break's tests, seconds


def applies(change: Break) -> bool:
    """Returns whether the text that a break replaces occurs exactly once in its file."""
    return (ROOT / change.file).read_text().count(change.old) == 1


def first_failure(change: Break, *marks: str) -> str | None:
    """Returns the name of the first test that fails on a copy of the code with the break.

    Returns None if all tests pass, take longer than `HANG` seconds, or pytest reports an error
    other than failed tests.

    Args:
      change: the break.
      *marks: options of pytest that select tests, such as "-m", "full".
    """
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", "runs", ".*_cache", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        path = copy / change.file
        path.write_text(path.read_text().replace(change.old, change.new))
        try:
            ran = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-xq",
                    "-p",
                    "no:cacheprovider",
                    *marks,
                    *change.tests,
                ],
                cwd=copy,
                env={**os.environ, "TAPELINE_TEST_DATA_DIR": prepared.data_dir() or ""},
                capture_output=True,
                text=True,
                timeout=HANG,
            )
        except subprocess.TimeoutExpired:  # a hang is not a detection
            return None
    found = re.search(r"^(?:FAILED|ERROR) \S+::(\w+)", ran.stdout, re.MULTILINE)
    # Status 1 means failed tests; any other status is an error of pytest.
    return found[1] if ran.returncode == 1 and found else None


def verdict(change: Break) -> tuple[bool, str]:
    """Returns whether the tests of a break detect it, and the line to print with the result."""
    if not applies(change):
        said = "DOES NOT APPLY"
    else:
        found = first_failure(change) or first_failure(change, "-m", "full")
        said = f"noticed by {found}" if found else "NOT NOTICED"
    return said.startswith("noticed"), f"{change.law}: {change.why} ({change.file}): {said}"


def main(arguments: list[str]) -> int:
    """Tests the breaks of the given laws, or of all if none is given, and prints each result.

    Args:
      arguments: keys of `LAWS`, or only `--table`, which prints README.md without testing.

    Returns:
      The exit status: 1 if a break is not detected or does not apply, otherwise 0.

    Raises:
      SystemExit: if an argument is not a key of `LAWS`.
    """
    if arguments == ["--table"]:
        print(table(), end="")
        return 0
    unknown = set(arguments) - set(LAWS)
    if unknown:
        sys.exit(f"no such law: {', '.join(sorted(unknown))}; there are {', '.join(LAWS)}")
    chosen = [change for change in BREAKS if not arguments or change.law in arguments]
    noticed = 0
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        for well, line in workers.map(verdict, chosen):
            print(line, flush=True)
            noticed += well
    print(f"{noticed} of {len(chosen)} breaks noticed")
    return 0 if noticed == len(chosen) else 1


def table() -> str:
    """Returns the text of tests/laws/README.md: the laws, their tests and their breaks."""
    lines = [
        "# The laws, their tests, and what the tests were seen to notice",
        "",
        "Written from `breaks.py` by `python -m tests.laws.mutate --table > tests/laws/README.md`.",
        "",
        "`python -m tests.laws.mutate` makes each of these breaks in a copy of the code and sees",
        "the test file beside it fail. `test_product.py` holds the laws on the product of all",
        "features.",
    ]
    for law, title in LAWS.items():
        breaks = [change for change in BREAKS if change.law == law]
        files = sorted({_file(test) for change in breaks for test in change.tests})
        links = [f"[{Path(path).name}]({os.path.relpath(path, 'tests/laws')})" for path in files]
        lines += ["", f"## {law}: {title}", "", f"Held by {', '.join(links)}.", ""]
        lines += ["| what is broken | where |", "|---|---|"]
        lines += [f"| {change.why} | `{change.file}` |" for change in breaks]
    return "\n".join(lines) + "\n"


def _file(test: str) -> str:
    return test.split("::")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
