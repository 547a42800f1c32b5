"""Runs the tests as other processors would: under five settings, one after the other.

    python -m tests.processors                              the whole suite, five times
    python -m tests.processors --only=avx2 tests/laws -x    one setting; the rest goes to pytest
    python -m tests.processors -n 2 --dist loadfile

XLA and oneDNN choose kernels by the processor's vector instructions, and TensorFlow cuts sums by
the number of threads. Environment variables hold all three to less than the machine has, which is
what a smaller machine would do. Eigen's kernels are compiled into TensorFlow and stay as they are.

Prints a row of a table for each setting when it ends. In the output directory each test's outcome
is written to NAME.jsonl as it comes, what pytest prints to NAME.log, and the rows to table.json.
The exit status is 0 where all tests passed under all settings, 1 where one did not, and 2 for bad
input.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]
# What a setting decides. Of the caller's own variables none of these is passed on.
VARIABLES = ("XLA_FLAGS", "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS")
RECORD = "TAPELINE_TEST_RECORD"  # where a session of pytest writes outcomes


@dataclass(frozen=True)
class Setting:
    """A processor that is rehearsed.

    Attributes:
      said: what it is, for the table.
      variables: of the environment, each one of `VARIABLES`.
      cores: how many the tests may use; 0: all.
    """

    said: str
    variables: Mapping[str, str]
    cores: int = 0


def _held_to(xla: str, onednn: str) -> dict[str, str]:
    return {"XLA_FLAGS": f"--xla_cpu_max_isa={xla}", "ONEDNN_MAX_CPU_ISA": onednn}


# TensorFlow takes oneDNN's kernels for 16-bit numbers by the processor's own flags, whatever oneDNN
# is held to. Held below AVX512_FP16 it has none for float16, below AVX-512 none for bfloat16, and
# the process aborts, as it does on no processor without them: there TensorFlow takes its own. So
# where oneDNN is on, it goes without AMX alone. `tests.golden.drift` holds it to less, in float32.
OFF = {"TF_ENABLE_ONEDNN_OPTS": "0"}
SETTINGS = {
    "machine": Setting("as the machine is", {}),
    "avx2": Setting(
        "AVX2, oneDNN on", {**_held_to("AVX2", "AVX512_CORE_FP16"), "TF_ENABLE_ONEDNN_OPTS": "1"}
    ),
    "avx2_plain": Setting("AVX2, oneDNN off", {**_held_to("AVX2", "AVX2"), **OFF}),
    "sse42_plain": Setting("SSE4.2, oneDNN off", {**_held_to("SSE4_2", "SSE41"), **OFF}),
    "one_core": Setting("as the machine is, one core", {}, cores=1),
}


@dataclass(frozen=True)
class Row:
    """The tests under one setting.

    Attributes:
      setting: by name.
      status: exit status of pytest.
      failures: names of the tests that failed, or that could not be set up or torn down.
    """

    setting: str
    said: str
    passed: int
    failed: int
    skipped: int
    minutes: float
    status: int
    failures: list[str]

    @property
    def good(self) -> bool:
        """Whether tests ran and none failed."""
        return self.status == 0 and not self.failed and self.passed > 0

    def __str__(self) -> str:
        ended = [] if self.good or self.status == 1 else [f"pytest ended with {self.status}"]
        said = ", ".join(self.failures + ended)
        counts = f"{self.passed} | {self.failed} | {self.skipped}"
        return f"| {self.said} | {counts} | {self.minutes:.1f} | {said} |"


HEAD = "| setting | passed | failed | skipped | minutes | failures |\n|---|---|---|---|---|---|"


def run(name: str, out: Path, arguments: list[str]) -> Row:
    """Runs the tests under a setting, in a process of its own."""
    setting, record = SETTINGS[name], out / f"{name}.jsonl"
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment |= {**setting.variables, RECORD: str(record)}
    line = [sys.executable, "-m", "pytest", "-p", "tests.processors", *arguments]
    record.write_text("")
    begun = time.monotonic()
    with (out / f"{name}.log").open("w") as log, _held(setting.cores):
        process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=log, stderr=log)
    status = process.wait()
    outcomes = outcomes_of(record)
    counts = Counter(outcomes.values())
    return Row(
        setting=name,
        said=setting.said,
        passed=counts["passed"],
        failed=counts["failed"],
        skipped=counts["skipped"],
        minutes=round((time.monotonic() - begun) / 60, 2),
        status=status,
        failures=[test for test, outcome in outcomes.items() if outcome == "failed"],
    )


@contextmanager
def _held(cores: int) -> Iterator[None]:
    """Processes that are started inside, and all that they start, may use so many cores."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def outcomes_of(record: Path) -> dict[str, str]:
    """The outcome of each test: "failed" where any of its phases failed."""
    found: dict[str, str] = {}
    for line in record.read_text().splitlines():
        phase = json.loads(line)
        if found.get(phase["test"]) != "failed":
            found[phase["test"]] = phase["outcome"]
    return found


class _Recorder:
    """Writes outcomes as they come."""

    def __init__(self, path: str) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Set-up and teardown count where they end a test, or fail.
        if report.when == "call" or report.outcome != "passed":
            self._write(report.nodeid, report.outcome)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome == "failed":
            self._write(report.nodeid, report.outcome)

    def _write(self, test: str, outcome: str) -> None:
        with open(self._path, "a") as file:
            file.write(json.dumps({"test": test, "outcome": outcome}) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Records the outcomes of this session, where the command has started it."""
    path = os.environ.get(RECORD)
    if path and not hasattr(config, "workerinput"):  # xdist's workers report to their session
        config.pluginmanager.register(_Recorder(path))


def main(arguments: list[str]) -> int:
    """Runs the settings that are asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.processors", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", action="append", choices=SETTINGS, help="may be repeated")
    parser.add_argument("--out", default="runs/processors", help="directory (default: %(default)s)")
    asked, given = parser.parse_known_args(arguments)
    out = Path(asked.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    print(HEAD, flush=True)
    for name in asked.only or SETTINGS:
        rows.append(run(name, out, given))
        print(rows[-1], flush=True)
        kept: list[dict[str, Any]] = [asdict(row) for row in rows]
        (out / "table.json").write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
