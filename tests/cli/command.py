"""Runs `python run.py ...` as users do: in a process that shares no state with the tests.

Run as a module, this file is the server of `Warm`: a process that imports TensorFlow once and forks
for each command line or script, which saves each fork the seconds of that import. Exit status,
output and behavior at exit are those of a new process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.runtime import onednn
from engine.runtime.processor import this_processor
from tests import processors
from tests.tensorflow_log import without_log

REPOSITORY = Path(__file__).resolve().parents[2]
HANG = int(os.environ.get("TEST_HANG", 300))  # seconds after which a process counts as hung
# Figures and XLA take seconds, and most tests do not need them; --report and --jit=auto are for
# those that do.
QUICK = ("--report=false", "--jit=off")
# 81 steps an epoch, 6 epochs; with dropout, and log points within the epochs.
LONG = ("--global_batch_size=16", "--epochs=6", "--log_every=5", "--checkpoint_every=30")


@dataclass(frozen=True)
class Outcome:
    """The exit status and the output of a process."""

    status: int
    out: str
    err: str

    def said(self) -> str:
        """Returns status and output as text, for the message of a failed assertion."""
        return f"exit status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


class Runner:
    """Base class of runners, which run `python run.py`."""

    def run(self, *arguments: str, **environment: str) -> Outcome:
        """Runs run.py with arguments and additional environment variables; returns the outcome."""
        raise NotImplementedError

    def started(
        self, *arguments: str, **environment: str
    ) -> AbstractContextManager[subprocess.Popen[str] | Forked]:
        """Returns a context manager that starts a process of run.py, and kills it at the end."""
        raise NotImplementedError

    def train(self, run_dir: Path, *arguments: str) -> Run:
        """Runs a training in `run_dir` and returns the run.

        Asserts that the exit status is 0, and that nothing is printed to standard error.
        """
        outcome = self.run(f"--run_dir={run_dir}", *arguments)
        assert outcome.status == 0, outcome.said()
        # Standard error is not a terminal: no progress bar. There are no warnings either.
        assert outcome.err == "", outcome.said()
        return Run(run_dir, outcome)


class Command(Runner):
    """Runner that starts a new process of Python for each call.

    Args:
      home: directory that replaces the user's home, empty at first.
      cache_dir: directory in which the digits are prepared.
    """

    def __init__(self, home: Path, cache_dir: str) -> None:
        self.home, self.cache_dir = home, cache_dir
        own = ("TF_", "TFDS_", "PYTHONWARNINGS", "TAPELINE_")  # settings of the test session
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(own) or name in processors.VARIABLES
        }
        self.environment |= {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "CUDA_VISIBLE_DEVICES": "",  # the same results on a machine that has a GPU
        }
        if not this_processor().is_neural:
            # oneDNN would be chosen by the network, but the server of `Warm` starts TensorFlow
            # before it knows a network, and tests compare the bits of its runs with others.
            self.environment.setdefault(onednn.VARIABLE, "1")

    def line(self, *arguments: str) -> list[str]:
        """Returns the command line of a process with the given arguments of run.py."""
        return [sys.executable, "run.py", f"--cache_dir={self.cache_dir}", *QUICK, *arguments]

    def run(self, *arguments: str, **environment: str) -> Outcome:
        """Runs run.py and returns the outcome when the process has ended."""
        done = subprocess.run(
            self.line(*arguments),
            cwd=REPOSITORY,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        return Outcome(done.returncode, done.stdout, without_log(done.stderr))

    @contextmanager
    def started(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Yields a running process of run.py; kills the process at the end of the block."""
        process = subprocess.Popen(
            self.line(*arguments),
            cwd=REPOSITORY,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def warmed(self, folder: Path) -> Iterator[Warm]:
        """Yields a runner with a server, and kills the server at the end of the block.

        The server imports TensorFlow. The output of its processes is written to `folder`.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.command", self.cache_dir],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield Warm(process, folder, self.cache_dir)
            finally:
                process.kill()


@dataclass(frozen=True)
class Interrupted:
    """A run that was stopped and then resumed by the same command."""

    stopped: Outcome
    left: list[str]  # names in run_dir after the stop
    saved: int  # step of the newest checkpoint after the stop
    rows: list[dict[str, Any]]  # of metrics.jsonl after the stop
    resumed: Run


@dataclass(frozen=True)
class Run:
    """A run directory, and the outcome of the process that wrote it."""

    run_dir: Path
    outcome: Outcome

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json."""
        return json.loads((self.run_dir / "result.json").read_text())

    def rows(self, split: str | None = None) -> list[dict[str, Any]]:
        """Returns the rows of metrics.jsonl, of `split` or of all splits."""
        rows = rows_of(self.run_dir)
        return [row for row in rows if split in (None, row["split"])]

    @property
    def curves(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl without wall-clock metrics."""
        return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in self.rows()]

    @property
    def checkpoints(self) -> list[int]:
        """Numbers in the names of the files in checkpoints/, in increasing order."""
        names = (self.run_dir / "checkpoints").glob("ckpt-*.npz")
        return sorted(int(name.stem.split("-")[1]) for name in names)


def await_rows(process: subprocess.Popen[str] | Forked, run_dir: Path, rows: int) -> None:
    """Waits until metrics.jsonl has this many rows, so that training is in progress.

    Raises AssertionError if the process ends before, or after `HANG` seconds.
    """
    end = time.monotonic() + HANG
    while len(rows_of(run_dir)) < rows:
        if process.poll() is not None and len(rows_of(run_dir)) < rows:
            raise AssertionError(f"ended before row {rows}: {process.communicate()}")
        assert time.monotonic() < end, f"row {rows} has not come"
        time.sleep(0.005)


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the complete rows of metrics.jsonl; [] if the file does not exist yet."""
    path = run_dir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


class Forked:
    """A process that `Warm` has started; a part of the interface of `subprocess.Popen`."""

    def __init__(self, warm: Warm, pid: int, out: Path, err: Path) -> None:
        self._warm, self._out, self._err = warm, out, err
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Returns the exit status, negative for a signal; None while the process runs."""
        if self.returncode is None:
            status = self._warm.asked({"poll": self.pid})
            self.returncode = None if status == "running" else int(status)
        return self.returncode

    def wait(self, timeout: float = HANG) -> int:
        """Waits for the end of the process; returns the exit status, negative for a signal.

        Raises:
          TimeoutError: if the process still runs after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"process {self.pid} runs after {timeout} s")
            time.sleep(0.01)
        return status

    def communicate(self, timeout: float = HANG) -> tuple[str, str]:
        """Waits for the end of the process; returns standard output and standard error.

        The lines that TensorFlow 2.20 logs are removed from standard error.

        Raises:
          TimeoutError: if the process still runs after `timeout` seconds.
        """
        self.wait(timeout)
        return self._out.read_text(), without_log(self._err.read_text())

    def errors(self) -> str:
        """Returns what the process has written to standard error so far."""
        return self._err.read_text() if self._err.exists() else ""

    def send_signal(self, number: int) -> None:
        """Sends a signal if the process runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process if it runs."""
        self.send_signal(signal.SIGKILL)


class Warm(Runner):
    """Runner that forks a server, which has imported TensorFlow; the client of `serve`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, cache_dir: str) -> None:
        self._process, self._folder, self._cache_dir = process, folder, cache_dir

    def run(self, *arguments: str, **environment: str) -> Outcome:
        """Runs run.py in a fork of the server and returns the outcome."""
        return self._ended(self._forked({"arguments": self._line(arguments)}, environment))

    def run_in(self, folder: Path, *arguments: str) -> Outcome:
        """Runs `tapeline` with exactly these arguments in a folder; returns the outcome."""
        return self._ended(self._forked({"arguments": arguments, "folder": str(folder)}, {}))

    def run_script(self, script: Path) -> Outcome:
        """Runs a Python file in a fork of the server, in its directory; returns the outcome."""
        return self._ended(self._forked({"script": str(script)}, {}))

    @contextmanager
    def started(self, *arguments: str, **environment: str) -> Iterator[Forked]:
        """Yields a running fork of the server; kills the fork at the end of the block."""
        process = self._forked({"arguments": self._line(arguments)}, environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def asked(self, request: dict[str, Any]) -> str:
        """Sends a request to `serve`, and returns the answer."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that forks has ended"
        return answer.strip()

    def _line(self, arguments: tuple[str, ...]) -> list[str]:
        return [f"--cache_dir={self._cache_dir}", *QUICK, *arguments]

    def _forked(self, request: dict[str, Any], environment: dict[str, str]) -> Forked:
        """Starts a child of the server, whose output goes to files, and returns the process."""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        out, err = place / "out", place / "err"
        request |= {"environment": environment, "out": str(out), "err": str(err)}
        return Forked(self, int(self.asked(request)), out, err)

    def _ended(self, process: Forked) -> Outcome:
        """Waits for the end of a child of the server; returns the outcome."""
        process.returncode = int(self.asked({"wait": process.pid}))
        return Outcome(process.returncode, *process.communicate())


def serve() -> None:
    """Answers requests on standard input, one JSON object per line, until the input ends.

    A command line ("arguments", in a "folder" if given) or a "script" is run in a fork, and the
    answer is its process ID.
    For "wait" and "poll", with a process ID, the answer is the exit status; for "poll" also
    "running". A fork that runs for `HANG` seconds is ended by SIGALRM.
    """
    from engine.runtime.startup import import_tensorflow

    import_tensorflow()
    from pipelines.sources.tfds import open_source
    from tapeline import command

    # Imported for the children, as are the modules that TFDS imports lazily.
    for module in ("reporting.evaluate_command", "serving.export", "trainer.command", "verify"):
        importlib.import_module(f"engine.{module}")
    open_source("digits", data_dir=None, cache_dir=sys.argv[1])
    gc.freeze()  # otherwise a child's exit spends a second on collecting garbage in TensorFlow
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked or "poll" in asked:
            options = 0 if "wait" in asked else os.WNOHANG
            pid, status = os.waitpid(asked.get("wait") or asked["poll"], options)
            print(os.waitstatus_to_exitcode(status) if pid else "running", flush=True)
            continue
        child = os.fork()
        if child == 0:
            signal.alarm(HANG)
            os.environ.update(asked["environment"])
            for descriptor, path in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
                flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                os.dup2(os.open(path, flags, 0o600), descriptor)
            if "folder" in asked:
                os.chdir(asked["folder"])
            if "arguments" in asked:
                sys.exit(command.main(asked["arguments"]))
            os.chdir(Path(asked["script"]).parent)
            sys.argv, sys.path[0] = [asked["script"]], os.getcwd()
            runpy.run_path(asked["script"], run_name="__main__")
            sys.exit()
        print(child, flush=True)


if __name__ == "__main__":
    serve()
