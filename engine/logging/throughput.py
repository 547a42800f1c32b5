"""Measures throughput, and goodput: the fraction of wall time since the first start spent on steps.

A restored checkpoint does not contain the steps that were lost in a kill. So the current step, the
number of restarts and the number of lost steps are also written to clock.json, at most once a
second. This file also holds the startup timings of the last start that took a step, for the results
of a start that takes none.
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

_FILE = "clock.json"
_BEAT = 1.0  # seconds between writes of clock.json


@dataclasses.dataclass
class _Known:
    """The values of a `TimingState`, as Python numbers; times are in seconds."""

    first_start: float = 0.0
    last_step: float = 0.0
    training: float = 0.0
    steady: float = 0.0
    steady_steps: int = 0
    restarts: int = 0
    lost_steps: int = 0


class ThroughputMeter:
    """Measures throughput and goodput over all starts of a run.

    Args:
      times: timings in the training state, so that a restart continues them; written by `note`.
      run_dir: run directory, which contains clock.json.
      writes: whether this process writes; True on one worker only.
    """

    def __init__(self, times: TimingState, run_dir: str, writes: bool = True) -> None:
        self._times, self._writes = times, writes
        self._path = os.path.join(run_dir, _FILE)
        self._known = self._noted()
        self._calls = 0
        self._launch: dict[str, Any] = {}
        self._beaten = -_BEAT

    def start(self, step: int, *, counts: bool = True) -> None:
        """Detects whether this is a restart, and counts the steps lost since the last checkpoint.

        Args:
          step: step at which the run starts; 0 if there is no checkpoint to resume from.
          counts: whether this may count as a restart; False if the run is already complete.
        """
        self._known, before = self._noted(), self._read()
        known = self._known
        known.restarts = max(known.restarts, before.get("restarts", 0))
        known.lost_steps = max(known.lost_steps, before.get("lost_steps", 0))
        if counts and (before or step):
            known.restarts += 1
            known.lost_steps += max(0, before.get("step", step) - step)
        known.first_start = known.first_start or before.get("first_start", time.time())
        self._launch = self._launch or before.get("launch", {})
        self.roll_back(0, step)

    def roll_back(self, steps: int, step: int) -> None:
        """Reads the timings of a restored state; keeps the first start, restarts and lost steps.

        Args:
          steps: number of steps rolled back, which is added to the lost steps.
          step: current step of the restored state.
        """
        known, self._known = self._known, self._noted()
        self._known.first_start = known.first_start
        self._known.restarts, self._known.lost_steps = known.restarts, known.lost_steps + steps
        self.note()
        self.beat(step, at_once=True)

    def note(self) -> None:
        """Writes the timings to the state; must be called before the state is saved."""
        for name, value in dataclasses.asdict(self._known).items():
            number = as_int64(value) if isinstance(value, int) else as_float64(value)
            getattr(self._times, name).assign(number)

    def _noted(self) -> _Known:
        return _Known(
            **{each.name: getattr(self._times, each.name).numpy().item() for each in _FIELDS}
        )

    def record_call(self, steps: int, seconds: float) -> None:
        """Records the duration of one call of the training loop.

        The throughput excludes the first call of a process, because it includes tracing.

        Args:
          steps: number of steps taken.
          seconds: duration of the call.
        """
        self._known.training += seconds
        self._known.last_step = time.time()
        self._calls += 1
        if self._calls > 1:
            self._known.steady += seconds
            self._known.steady_steps += steps

    def record_startup(self, startup_seconds: Mapping[str, float], traces: int) -> None:
        """Records the startup timings after the first step of this start.

        Args:
          startup_seconds: seconds of each part of the startup, by name, from the launch of the
            process to the end of its first step.
          traces: number of traces of the training loop.
        """
        self._launch = {"startup_seconds": dict(startup_seconds), "traces": traces}

    @property
    def startup_seconds(self) -> dict[str, float] | None:
        """Startup timings in seconds of the last start that took a step; None if no start did."""
        return self._launch.get("startup_seconds")

    @property
    def traces(self) -> dict[str, int]:
        """{"train": number of traces} of the last start that took a step; {} if no start did."""
        return {"train": self._launch["traces"]} if self._launch else {}

    def beat(self, step: int, *, at_once: bool = False) -> None:
        """Writes the current step and the counts to clock.json, at most once a second.

        Args:
          step: current step.
          at_once: whether to write even if the last write was less than a second ago.
        """
        now = time.monotonic()
        if not self._writes or (now - self._beaten < _BEAT and not at_once):
            return
        self._beaten = now
        known = {
            "step": step,
            "restarts": self._known.restarts,
            "lost_steps": self._known.lost_steps,
            "first_start": self._known.first_start,
            "launch": self._launch,
        }
        with contextlib.suppress(OSError):  # a failure to write timings must not end a run
            replace_file(self._path, json.dumps(known) + "\n", durable=False)

    def _read(self) -> dict:
        try:
            with open(self._path, encoding="utf-8") as file:
                known = json.load(file)
            found = {name: type(value)(known[name]) for name, value in _NOTHING.items()}
            return found | {"launch": known.get("launch") or {}}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @property
    def steps_per_second(self) -> float:
        """Steps per second over all starts, without the first call of each start; 0 if unknown."""
        return self._known.steady_steps / self._known.steady if self._known.steady else 0.0

    @property
    def train_seconds(self) -> float:
        """Seconds spent in the training loop over all starts, with tracing, without lost steps."""
        return self._known.training

    @property
    def goodput(self) -> float:
        """`train_seconds` over the wall time from the first start to the last step, 0 to 1."""
        wall = self._known.last_step - self._known.first_start
        return min(1.0, self.train_seconds / wall) if wall > 0 else 0.0

    @property
    def figures(self) -> dict[str, float | int]:
        """Goodput, number of restarts and number of lost steps, by name."""
        return {
            "goodput": self.goodput,
            "restarts": self._known.restarts,
            "lost_steps": self._known.lost_steps,
        }


_FIELDS = dataclasses.fields(_Known)
_NOTHING = {"step": 0, "restarts": 0, "lost_steps": 0, "first_start": 0.0}
