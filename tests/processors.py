"""Runs the tests as on other processors: under five settings, one after the other.

    python -m tests.processors                              the whole suite, five times
    python -m tests.processors --only=avx2 tests/laws -x    one setting; other arguments for pytest
    python -m tests.processors -n 2 --dist loadfile

XLA and oneDNN choose kernels by the processor's vector instructions, and TensorFlow divides sums by
the number of threads. Environment variables limit all three, as on a smaller machine. Eigen's
kernels are compiled into TensorFlow and do not change.

Prints a table row for each setting when it ends. In the output directory, each test's outcome is
written to NAME.jsonl as it is reported, pytest's output to NAME.log, and the rows to table.json.
The exit status is 0 if all tests passed under all settings, 1 if one did not, and 2 for bad input.
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
# Controlled by the settings; the caller's values are not passed on.
VARIABLES = ("XLA_FLAGS", "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS")
RECORD = "TAPELINE_TEST_RECORD"  # file to which a pytest session writes outcomes


@dataclass(frozen=True)
class Setting:
    """A simulated processor.

    Attributes:
      said: description in the printed table.
      variables: environment variables, whose names are in `VARIABLES`.
      cores: number of cores the tests may use; 0: all.
    """

    said: str
    variables: Mapping[str, str]
    cores: int = 0


def _held_to(xla: str, onednn: str) -> dict[str, str]:
    return {"XLA_FLAGS": f"--xla_cpu_max_isa={xla}", "ONEDNN_MAX_CPU_ISA": onednn}


# TensorFlow selects oneDNN's 16-bit kernels by the CPU flags, whatever oneDNN's ISA limit. Below
# AVX512_FP16 oneDNN has no float16 kernels, below AVX-512 no bfloat16 kernels, and the process
# aborts. A processor without these instructions does not abort: TensorFlow uses its own kernels. So
# where oneDNN is on, only AMX is disabled. `tests.golden.drift` limits oneDNN further, in float32.
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
    """The results of the tests under one setting.

    Attributes:
      setting: name of the setting.
      said: description of the setting.
      passed: number of tests that passed.
      failed: number of tests that failed.
      skipped: number of skipped tests.
      minutes: duration.
      status: exit status of pytest.
      failures: names of the tests that failed, or whose set-up or teardown failed.
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
        """Whether pytest ended with status 0, no test failed and at least one passed."""
        return self.status == 0 and not self.failed and self.passed > 0

    def __str__(self) -> str:
        ended = [] if self.good or self.status == 1 else [f"pytest ended with {self.status}"]
        said = ", ".join(self.failures + ended)
        counts = f"{self.passed} | {self.failed} | {self.skipped}"
        return f"| {self.said} | {counts} | {self.minutes:.1f} | {said} |"


HEAD = "| setting | passed | failed | skipped | minutes | failures |\n|---|---|---|---|---|---|"


def run(name: str, out: Path, arguments: list[str]) -> Row:
    """Runs pytest under a setting in a subprocess; returns the results.

    Args:
      name: name of the setting.
      out: directory for the log and the outcomes.
      arguments: arguments of pytest.
    """
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
    """Limits child processes that are started in the block to a number of cores; 0: no limit."""
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
    """Returns each test's outcome by name: "failed" if a phase failed, else that of the last phase.

    Args:
      record: file of `_Recorder`.
    """
    found: dict[str, str] = {}
    for line in record.read_text().splitlines():
        phase = json.loads(line)
        if found.get(phase["test"]) != "failed":
            found[phase["test"]] = phase["outcome"]
    return found


class _Recorder:
    """A pytest plugin that appends the test's name and outcome to a JSON Lines file at each report.

    Set-up, teardown and collection are recorded only if they do not pass.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Set-up and teardown count only if they fail or skip.
        if report.when == "call" or report.outcome != "passed":
            self._write(report.nodeid, report.outcome)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome == "failed":
            self._write(report.nodeid, report.outcome)

    def _write(self, test: str, outcome: str) -> None:
        with open(self._path, "a") as file:
            file.write(json.dumps({"test": test, "outcome": outcome}) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the recorder if `TAPELINE_TEST_RECORD` is set, except in xdist workers."""
    path = os.environ.get(RECORD)
    if path and not hasattr(config, "workerinput"):  # xdist workers report to the main session
        config.pluginmanager.register(_Recorder(path))


def main(arguments: list[str]) -> int:
    """Runs the selected settings; returns 0 if all tests passed under all of them, otherwise 1."""
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
