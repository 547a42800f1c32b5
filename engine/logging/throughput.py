"""Measures throughput, and goodput: the fraction of wall time since the first start spent on steps.

A checkpoint does not count the steps after it that a kill loses. So clock.json, written at most
once a second, holds the step and the numbers of restarts and lost steps. It also holds the startup
timings of the last process that took a step, for result.json of a process that takes none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from engine.core.state import TimingState
from engine.runtime.atomic_files import replace_file
from engine.runtime.scalars import as_float64, as_int64

_WRITE_INTERVAL = 1.0  # seconds between writes of clock.json


@dataclasses.dataclass
class _Timings:
    """The values of a `TimingState`, as Python numbers; times are in seconds."""

    first_start: float = 0.0
    last_step: float = 0.0
    training: float = 0.0
    steady: float = 0.0
    steady_steps: int = 0
    restarts: int = 0
    lost_steps: int = 0


class ThroughputMeter:
    """Meter of the throughput and goodput of a run over all its starts, each in a new process.

    Args:
      times: timings in the training state, from which the meter continues; `note` updates them.
      run_dir: run directory, which holds clock.json.
      writes: whether to write clock.json, True on one worker.
    """

    def __init__(self, times: TimingState, run_dir: str, writes: bool = True) -> None:
        self._state, self._writes = times, writes
        self._path = os.path.join(run_dir, "clock.json")
        self._timings = self._from_state()
        self._calls = 0
        self._measured, self._waited = 0.0, 0.0  # seconds since the last call of `input_wait`
        self._launch: dict[str, Any] = {}
        self._last_write = -_WRITE_INTERVAL

    def start(self, step: int, *, counts: bool = True) -> None:
        """Starts the measurement at `step`, that of the restored state; writes clock.json.

        If clock.json exists or `step` is not 0, counts a restart, and counts the steps from `step`
        to the step in clock.json as lost. If `counts` is False, because the run is already
        complete, counts nothing.
        """
        timings, before = self._from_state(), self._read()
        timings.restarts = max(timings.restarts, before.get("restarts", 0))
        timings.lost_steps = max(timings.lost_steps, before.get("lost_steps", 0))
        if counts and (before or step):
            timings.restarts += 1
            timings.lost_steps += max(0, before.get("step", step) - step)
        timings.first_start = timings.first_start or before.get("first_start", time.time())
        self._timings = timings
        self._launch = self._launch or before.get("launch", {})
        self.note()
        self.beat(step, at_once=True)

    def roll_back(self, steps: int, step: int) -> None:
        """Continues from the timings of a state that was rolled back to `step`; writes clock.json.

        Keeps the first start and the number of restarts, and adds `steps` to the number of lost
        steps.
        """
        self._timings = dataclasses.replace(
            self._from_state(),
            first_start=self._timings.first_start,
            restarts=self._timings.restarts,
            lost_steps=self._timings.lost_steps + steps,
        )
        self.note()
        self.beat(step, at_once=True)

    def note(self) -> None:
        """Writes the timings to the training state; must be called before the state is saved."""
        for name, value in dataclasses.asdict(self._timings).items():
            number = as_int64(value) if isinstance(value, int) else as_float64(value)
            getattr(self._state, name).assign(number)

    def record_call(self, steps: int, seconds: float, waited: float = 0.0) -> None:
        """Adds a call of the loop, which took `steps` steps in `seconds`.

        Of these, the host waited `waited` seconds for the feed. `steps_per_second` and `input_wait`
        exclude the first call of each process.
        """
        self._timings.training += seconds
        self._timings.last_step = time.time()
        self._calls += 1
        if self._calls > 1:
            self._timings.steady += seconds
            self._timings.steady_steps += steps
            self._measured += seconds
            self._waited += waited

    def input_wait(self) -> float | None:
        """Returns the share of the loop's time in which the host waited for data, 0 to 1.

        It is that since the last call of this method; None if no call of the loop was measured. No
        step runs while the host waits. The in-memory feed gathers its batches in the steps, so that
        its share is nearly 0.
        """
        measured, waited = self._measured, self._waited
        self._measured = self._waited = 0.0
        return min(1.0, waited / measured) if measured else None

    def record_startup(self, startup_seconds: Mapping[str, float], traces: int) -> None:
        """Records the seconds of each part of the startup, and the number of loop traces."""
        self._launch = {"startup_seconds": dict(startup_seconds), "traces": traces}

    def beat(self, step: int, *, at_once: bool = False) -> None:
        """Writes clock.json, at most once a second unless `at_once`; ignores an OSError."""
        now = time.monotonic()
        if not self._writes or (now - self._last_write < _WRITE_INTERVAL and not at_once):
            return
        self._last_write = now
        content = {
            "step": step,
            "restarts": self._timings.restarts,
            "lost_steps": self._timings.lost_steps,
            "first_start": self._timings.first_start,
            "launch": self._launch,
        }
        with contextlib.suppress(OSError):  # a failure to write timings must not end a run
            replace_file(self._path, json.dumps(content) + "\n", durable=False)

    @property
    def startup_seconds(self) -> dict[str, float] | None:
        """Seconds of each startup part in the last start that took a step; None if none did."""
        return self._launch.get("startup_seconds")

    @property
    def traces(self) -> dict[str, int]:
        """{"train": number of loop traces} in the last start that took a step; {} if none did."""
        return {"train": self._launch["traces"]} if self._launch else {}

    @property
    def steps_per_second(self) -> float:
        """Steps per second over all starts, without the first call of each start; 0 if unknown."""
        return self._timings.steady_steps / self._timings.steady if self._timings.steady else 0.0

    @property
    def train_seconds(self) -> float:
        """Seconds in the training loop over all starts, without tracing and lost steps."""
        return self._timings.training

    @property
    def goodput(self) -> float:
        """Ratio of `train_seconds` to the wall time from first start to last step, 0 to 1."""
        wall = self._timings.last_step - self._timings.first_start
        return min(1.0, self.train_seconds / wall) if wall > 0 else 0.0

    @property
    def figures(self) -> dict[str, float | int]:
        """Goodput, number of restarts and number of lost steps, by name."""
        return {
            "goodput": self.goodput,
            "restarts": self._timings.restarts,
            "lost_steps": self._timings.lost_steps,
        }

    def _from_state(self) -> _Timings:
        names = [field.name for field in dataclasses.fields(_Timings)]
        return _Timings(**{name: getattr(self._state, name).numpy().item() for name in names})

    def _read(self) -> dict[str, Any]:
        """Returns the content of clock.json; {} if it is missing or damaged."""
        try:
            with open(self._path, encoding="utf-8") as file:
                content = json.load(file)
            types = {"step": int, "restarts": int, "lost_steps": int, "first_start": float}
            numbers = {name: of_type(content[name]) for name, of_type in types.items()}
            return {**numbers, "launch": content.get("launch") or {}}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
