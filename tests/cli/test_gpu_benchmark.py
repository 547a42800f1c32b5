"""Tests of `python -m benchmarks.gpu`: no failure of a part, and no kill, loses what is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import table
from tests.cli.command import HANG, REPOSITORY, Command

# Runs the benchmark with parts of the test, which it reads from a file.
SCRIPT = """
import json, sys
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.parts import Part

def parts(out, **_):
    return [Part(**each) for each in json.load(open(sys.argv[1]))]

status = main(sys.argv[2:], parts)
assert "tensorflow" not in sys.modules
sys.exit(status)
"""
TIMED = {
    "workload": "W1",
    "what": "a network",
    "contender": "Tapeline",
    "precision": "mixed_bfloat16",
    "jit": "off",
    "device": "NVIDIA H100 80GB HBM3",
    "tf32": True,
    "gflop_per_step": 98.94,
    "first_step_seconds": 1.5,
    "steps_per_second": {"median": 4000.0, "p10": 3900.0, "p90": 4100.0},
}


def part(name: str, code: str = "", *, figures: Any = None, limit: float = 60, **more: Any) -> dict:
    """Returns a part that runs Python code and then prints figures, if any, as JSON."""
    told = "" if figures is None else f"print({json.dumps(figures)!r})"
    return {
        "name": name,
        "command": [sys.executable, "-c", f"{code}\n{told}"],
        "limit": limit,
        **more,
    }


class Benchmark:
    """Starts the benchmark with given parts, without a GPU, in a directory of its own."""

    def __init__(self, place: Path, parts: list[dict]) -> None:
        self.place, self.out = place, place / "out"
        (place / "parts.json").write_text(json.dumps(parts))
        (place / "script.py").write_text(SCRIPT)

    def start(self, *options: str) -> subprocess.Popen[str]:
        line = [sys.executable, self.place / "script.py", self.place / "parts.json"]
        return subprocess.Popen(
            [*map(str, line), f"--out={self.out}", "--rehearse", *options],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str) -> tuple[int, str, str]:
        """Returns exit status, standard output and standard error."""
        with self.start(*options) as process:
            out, err = process.communicate(timeout=HANG)
        return process.returncode, out, err

    @property
    def results(self) -> dict[str, Any]:
        return json.loads((self.out / "results.json").read_text())

    @property
    def markdown(self) -> str:
        path = self.out / "GPU.md"
        return path.read_text() if path.exists() else ""

    @property
    def statuses(self) -> dict[str, str]:
        path = self.out / "results.json"
        return {k: v["status"] for k, v in self.results["parts"].items()} if path.exists() else {}


def await_true(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_gone(pid_file: Path) -> bool:
    """Returns whether the process whose ID is in a file has ended; it may still be a zombie."""
    try:
        state = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
    except FileNotFoundError:
        return True
    return state.rpartition(")")[2].split()[0] in "ZX"


def test_failures_leave_other_parts(tmp_path: Path):
    """Parts that fail, hang, are killed or print something else do not touch the others."""
    child = f"import subprocess, sys; open({str(tmp_path / 'pid')!r}, 'w').write(str("
    child += "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid))"
    hangs = f"{child}\nprint('{{\"known\": 1}}', flush=True)\nimport time\ntime.sleep(600)"
    benchmark = Benchmark(
        tmp_path,
        [
            part("first", figures={"value": float("nan")}),
            part("fails", "print('{\"known\": 2}', flush=True)\nraise SystemExit('no memory')"),
            part("hangs", hangs, limit=3),
            part("dies", "import os; os.kill(os.getpid(), 11)"),
            part("silent", "print('nothing')"),
            part("odd", figures={"workload": "W1", "steps_per_second": "many", "laws": 1}),
            part("refuses", "raise SystemExit(2)", may_refuse=True),
            part("refuses_and_may_not", "raise SystemExit(2)"),
            part("other", figures={}, package="a_package_that_nobody_has"),
            part("W1.engine", figures=TIMED),
            part("W1.jit_off", figures=TIMED, same_as="W1.engine", jit="off"),
        ],
    )
    status, out, err = benchmark.run()
    assert (status, err) == (1, "")
    assert benchmark.statuses == {
        "first": "ok",
        "fails": "failed",
        "hangs": "timeout",
        "dies": "killed",
        "silent": "failed",
        "odd": "ok",
        "refuses": "refused",
        "refuses_and_may_not": "failed",
        "other": "not installed",
        "W1.engine": "ok",
        "W1.jit_off": "same",
    }
    found = benchmark.results["parts"]
    assert found["first"]["figures"] == {"value": None}
    assert found["fails"]["figures"] == {"known": 2} and found["hangs"]["figures"] == {"known": 1}
    assert found["fails"]["last_lines"] == ["no memory"]
    assert found["dies"]["exit_status"] == -11
    assert is_gone(tmp_path / "pid")
    markdown = benchmark.markdown
    assert all(f"| {name} | {each} |" in markdown for name, each in benchmark.statuses.items())
    assert all(f"] {name}: " in out for name in found)


def test_figures_survive_odd_parts(tmp_path: Path):
    """Other sections of the table, and the summary, are made beside a part with odd figures."""
    odd = part("odd", figures={"workload": "W2", "steps_per_second": "many"})
    benchmark = Benchmark(tmp_path, [odd, part("W1.engine", figures=TIMED)])
    assert benchmark.run()[0] == 0
    (row,) = benchmark.results["summary"]["W1"]
    assert row["mfu"] == pytest.approx(0.4)
    assert "40.0%" in benchmark.markdown


def test_killed_driver_goes_on(tmp_path: Path):
    """After SIGKILL, the finished parts are in valid JSON, and the same command runs the others."""
    ran, go = tmp_path / "ran", tmp_path / "go"

    def noted(name: str, code: str = "", **more: Any) -> dict:
        return part(name, f"open({str(ran)!r}, 'a').write('{name} ')\n{code}", figures={}, **more)

    waits = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    waits += f"while not os.path.exists({str(go)!r}): time.sleep(0.05)"
    last = noted("last")
    # The rehearsal runs two parts at once: the third starts when one of them ends.
    benchmark = Benchmark(tmp_path, [noted("first"), noted("waits", waits), last])
    with benchmark.start("--part=first", "--part=waits") as process:
        await_true(lambda: "| first | ok |" in benchmark.markdown and (tmp_path / "pid").exists())
        process.kill()
        process.communicate(timeout=HANG)
    assert benchmark.statuses == {"first": "ok"}
    await_true(lambda: is_gone(tmp_path / "pid"))  # no part continues without the driver
    go.touch()
    status, _, err = benchmark.run()
    assert (status, err) == (0, "")
    assert benchmark.statuses == dict.fromkeys(["first", "waits", "last"], "ok")
    assert sorted(ran.read_text().split()) == ["first", "last", "waits", "waits"]


def test_signal_ends_parts(tmp_path: Path):
    hangs = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    benchmark = Benchmark(tmp_path, [part("hangs", f"{hangs}time.sleep(600)"), part("x")])
    with benchmark.start() as process:
        await_true(lambda: (tmp_path / "pid").exists() and benchmark.statuses.get("x"))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    assert benchmark.statuses["hangs"] == "interrupted" and is_gone(tmp_path / "pid")


def test_no_time_left(tmp_path: Path):
    benchmark = Benchmark(tmp_path, [part("first", figures={})])
    assert benchmark.run("--seconds=0")[0] == 0
    assert benchmark.statuses == {"first": "not started"}
    assert benchmark.run()[0] == 0
    assert benchmark.statuses == {"first": "ok"}


def test_bad_input(tmp_path: Path):
    """Each is one line on standard error, and exit status 2; no result is overwritten."""
    benchmark = Benchmark(tmp_path, [part("first", figures={})])
    status, _, err = benchmark.run("--part=second")
    assert status == 2 and err.startswith("error: --part=second") and err.count("\n") == 1
    assert not benchmark.out.exists()
    benchmark.out.mkdir()
    path = benchmark.out / "results.json"
    other = {"rehearsal": False, "dataset": "digits", "parts": {}}
    for text in ("torn", "[]", "{}", json.dumps(other)):
        path.write_text(text)
        status, _, err = benchmark.run()
        assert status == 2 and "give another --out" in err and err.count("\n") == 1
        assert path.read_text() == text


def test_second_driver_refused(tmp_path: Path):
    benchmark = Benchmark(tmp_path, [part("hangs", "import time; time.sleep(600)")])
    with benchmark.start() as process:
        await_true((benchmark.out / "results.json").exists)
        status, _, err = benchmark.run()
        assert status == 2 and "in use" in err and err.count("\n") == 1
        process.terminate()
        process.communicate(timeout=HANG)


def test_driver_without_tensorflow(command: Command, tmp_path: Path):
    """Help and the list of the parts do not import TensorFlow."""
    for name in ("tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(77)\n")
    for option in ("--help", "--list"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", "--out=nowhere", option],
            cwd=REPOSITORY,
            env=command.environment | {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["environment", "gpu_flags"]


@pytest.fixture(scope="module")
def rehearsal(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the directory of a whole rehearsal."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    done = subprocess.run(
        # More time than by default, because other tests run at the same time.
        [sys.executable, "-m", "benchmarks.gpu", f"--out={out}", "--rehearse", "--seconds=1500"],
        cwd=REPOSITORY,
        env=command.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=5 * HANG,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return out


def test_rehearsal(rehearsal: Path):
    """Every part runs on the CPU, or says why it does not."""
    results = json.loads((rehearsal / "results.json").read_text())
    parts = results["parts"]
    statuses = {name: part["status"] for name, part in parts.items()}
    others = {name: status for name, status in statuses.items() if status != "ok"}
    assert {n.partition(".")[2] for n, s in others.items() if s == "same"} == {"jit_off"}
    frameworks = {"gpt2.torch", "gpt2.jax"}
    assert {n for n, s in others.items() if s == "not installed"} <= frameworks
    assert set(others.values()) <= {"same", "not installed"}
    resumed = parts["gpu_flags"]["figures"]
    assert resumed["same_bits"] and resumed["restarts"] == 1
    assert 0 < resumed["killed_after_step"] < resumed["step"]
    assert resumed["test"]["accuracy"] > 0.9
    for precision in ("float32", "bfloat16"):
        assert parts[f"verify_{precision}"]["figures"]["passed"]
    assert parts["environment"]["figures"]["device"] is None
    for workload in ("W1", "resnet50", "gpt2"):
        rows = {row["part"]: row for row in results["summary"][workload]}
        assert {f"{workload}.{each}" for each in ("engine", "bare", "keras")} <= rows.keys()
        assert all(row["steps_per_second"] > 0 and row["mfu"] is None for row in rows.values())
        assert parts[f"{workload}.engine"]["figures"]["skipped_steps"] == 0
    assert parts["W1.stream"]["figures"]["feed"] == "stream"


def test_table_from_json_alone(rehearsal: Path):
    results = json.loads((rehearsal / "results.json").read_text())
    markdown = (rehearsal / "GPU.md").read_text()
    assert table.written(results) == markdown
    assert "A rehearsal on the CPU" in markdown and "No section" not in markdown
    assert "No MFU" in markdown and "the same bits" in markdown
