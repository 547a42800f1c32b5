"""Runs the parts of the GPU benchmark in processes of their own, and keeps what they find.

After every part, results.json is replaced as a whole, and GPU.md is made from it: a cut-off at any
time loses at most the parts that are running. The driver imports neither TensorFlow nor a module
that does, so that it survives whatever the parts do.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import table
from benchmarks.gpu.parts import REFUSES, Part
from engine.runtime.atomic_files import replace_file

ROOT = Path(__file__).parents[2]
DONE = ("ok", "refused", "same")  # statuses of parts that do not run again
_LEAST_SECONDS = 10.0  # with less time left, no part starts
_POLL_SECONDS = 0.05
_KILL_SECONDS = 5.0  # for a killed process to end, which a driver of a device may prevent
_LAST_LINES, _LINE_LENGTH = 8, 300


class StopError(Exception):
    """A signal that ends the driver; `number` is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class _Running(NamedTuple):
    """A part whose process runs, with its time-out in seconds and its start, `time.monotonic()`."""

    part: Part
    process: subprocess.Popen[bytes]
    limit: float
    started: float


class Driver:
    """Runs parts, at most `at_once` at the same time, and writes the results to a directory.

    Args:
      out: directory of results.json, GPU.md and logs/.
      results: content of results.json so far; see `begun`.
      seconds: time for all parts together.
      at_once: number of parts that run at the same time: 1 to measure.
      environment: further environment variables of the parts.
      order: names of all parts, in the order in which the results list them.
    """

    def __init__(
        self,
        out: Path,
        results: dict[str, Any],
        *,
        seconds: float,
        at_once: int,
        environment: dict[str, str],
        order: Sequence[str],
    ) -> None:
        self.results, self._out, self._at_once, self._order = results, out, at_once, order
        self._stopped_by: int | None = None  # number of a signal
        self._end = time.monotonic() + seconds
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self._environment = os.environ | environment
        self._environment |= {"PYTHONPATH": ":".join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        self._count = self._of = 0
        (out / "logs").mkdir(parents=True, exist_ok=True)

    def run(self, parts: Sequence[Part]) -> None:
        """Runs parts in their order, except those that are done already.

        Raises:
          StopError: on SIGINT, SIGTERM or SIGHUP, after the running parts are killed and recorded.
          OSError: if the results cannot be written.
        """
        waiting = [part for part in parts if self._status(part.name) not in DONE]
        self._of = len(waiting)
        running: list[_Running] = []
        self._write()
        try:
            with self._signals():
                while waiting or running:
                    if self._stopped_by is not None:
                        raise StopError(self._stopped_by)
                    while waiting and len(running) < self._at_once:
                        started = self._started(waiting.pop(0))
                        running += [started] if started is not None else []
                    running = [each for each in running if not self._ended(each)]
                    time.sleep(_POLL_SECONDS if running else 0)
        finally:
            for each in running:
                _kill(each.process)
                self._record(each, "interrupted")

    def _started(self, part: Part) -> _Running | None:
        """Starts a part, or records why it does not start and returns None."""
        left = self._end - time.monotonic()
        if part.package and importlib.util.find_spec(part.package) is None:
            self._skip(part, "not installed", f"{part.package} is not installed")
            return None
        other = self.results["parts"].get(part.same_as, {}).get("figures") or {}
        if part.same_as and other.get("jit") == part.jit:
            self._skip(part, "same", f"as {part.same_as}, where --jit=auto is {part.jit}")
            return None
        if left < min(_LEAST_SECONDS, part.limit):
            self._skip(part, "not started", "no time was left")
            return None
        log = str(self._out / "logs" / part.name)
        with open(f"{log}.out", "wb") as out, open(f"{log}.err", "wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.supervise", *part.command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
                cwd=ROOT,
                env=self._environment,
                start_new_session=True,
            )
        return _Running(part, process, min(part.limit, left), time.monotonic())

    def _ended(self, running: _Running) -> bool:
        """Returns whether a part has ended, which is then recorded; kills it after its time-out."""
        status = running.process.poll()
        if status is None:
            if time.monotonic() < running.started + running.limit:
                return False
            gone = _kill(running.process)
            self._record(running, "timeout", "" if gone else "SIGKILL did not end it")
            return True
        _kill(running.process)  # what it has left in its process group
        figures = _figures(self._out / "logs" / f"{running.part.name}.out")
        if status == 0:
            self._record(running, "failed" if figures is None else "ok")
        elif status == REFUSES and running.part.may_refuse:
            self._record(running, "refused")
        else:
            self._record(running, "killed" if status < 0 else "failed")
        return True

    def _status(self, name: str) -> str | None:
        return self.results["parts"].get(name, {}).get("status")

    def _skip(self, part: Part, status: str, reason: str) -> None:
        if status == "not started" and self._status(part.name) is not None:
            self._show(part.name, "not started again")  # what an earlier start has found stays
            return
        self.results["parts"][part.name] = {
            "status": status,
            "reason": reason,
            "seconds": 0.0,
            "last_lines": [],
        }
        self._write()
        self._show(part.name, f"{status}: {reason}")

    def _record(self, running: _Running, status: str, reason: str = "") -> None:
        """Writes a part's result; what it has printed counts, whatever its end was."""
        name, logs = running.part.name, self._out / "logs"
        lines = _last_lines(logs / f"{name}.err") or _last_lines(logs / f"{name}.out")
        found: dict[str, Any] = {
            "status": status,
            "seconds": round(time.monotonic() - running.started, 2),
            "limit": round(running.limit, 1),
            "date": time.strftime("%Y-%m-%d %H:%M:%S"),
            "exit_status": running.process.poll(),
            "command": " ".join(running.part.command),
            "last_lines": [] if status == "ok" else lines,
            "figures": _figures(logs / f"{name}.out"),
        }
        if reason:
            found["reason"] = reason
        self.results["parts"][name] = found
        self._write()
        told = table.line(found) if status in ("ok", "timeout") else (lines or [""])[-1]
        self._show(name, f"{status}, {found['seconds']:.1f} s: {told}")

    def _write(self) -> None:
        """Replaces both files; a table that cannot be made does not end the driver."""
        parts = self.results["parts"]
        names = [*(name for name in self._order if name in parts), *parts]
        self.results["parts"] = {name: parts[name] for name in dict.fromkeys(names)}
        text = "# One GPU\n\nNo table can be made of results.json"
        try:
            self.results["summary"] = table.summary(self.results)
            text = table.written(self.results)
        except Exception as error:  # a part that was cut off may have told anything
            text = f"{text}: {type(error).__name__}: {error}\n"
        replace_file(str(self._out / "results.json"), json.dumps(self.results, indent=1) + "\n")
        replace_file(str(self._out / "GPU.md"), text)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Sets `_stopped_by` in the block, on a signal that ends a command."""

        def stop(number: int, frame: Any) -> None:
            self._stopped_by = number

        numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _show(self, name: str, text: str) -> None:
        self._count += 1
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f"[{self._count:2}/{self._of}] {name}: {text}", flush=True)


def begun(out: Path, command: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the results of an earlier start in a directory, or those of a new one without parts.

    Args:
      out: the directory.
      command: the command line.
      settings: what must be the same in both starts: "rehearsal" and "dataset".

    Raises:
      ValueError: if the directory has results with other settings, or a results.json of another
        origin.
    """
    path = out / "results.json"
    new = {"command": command, "date": time.strftime("%Y-%m-%d"), **settings, "parts": {}}
    if not path.exists():
        return new
    try:
        found = json.loads(path.read_text())
        parts = dict(found["parts"])
        before = {name: found[name] for name in settings}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a result of this command: give another --out") from None
    if before != settings:
        told = ", ".join(f"{name} {value}" for name, value in before.items())
        raise ValueError(f"--out={out} has results of other settings ({told}): give another --out")
    return new | {"parts": parts}


def _kill(process: subprocess.Popen[bytes]) -> bool:
    """Kills a process group and waits for its end; returns whether its leader has ended."""
    end = time.monotonic() + _KILL_SECONDS
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.stdin is not None:
            process.stdin.close()
    while _is_alive(process.pid) and time.monotonic() < end:  # until the GPU's memory is free
        time.sleep(_POLL_SECONDS)
    return True


def _is_alive(group: int) -> bool:
    """Returns whether a process group has processes that run; zombies do not count."""
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            state, _, pgrp = file.read().rpartition(")")[2].split()[:3]  # proc(5)
            if int(pgrp) == group and state not in "ZX":
                return True
    return False


def _figures(path: Path) -> dict[str, Any] | None:
    """Returns the last line of a file that is a JSON object; None if there is none."""
    for text in reversed(path.read_text(errors="replace").splitlines()):
        if text.startswith("{"):
            with contextlib.suppress(ValueError):
                return _finite(json.loads(text))
    return None


def _finite(value: Any) -> Any:
    """Returns a JSON value with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _last_lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    return [line[:_LINE_LENGTH] for line in lines if line][-_LAST_LINES:]
