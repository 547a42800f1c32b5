"""Steps per second, and goodput: the share of the time since the first start that went into steps.

The state cannot count what a kill cost, because it holds only what was saved. So the current step,
the starts and the lost steps are written to a small file, about once a second. The file also keeps
the startup timings of the last start that took steps, for a start that only finishes the run.
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
_BEAT = 1.0  # seconds


@dataclasses.dataclass
class _Known:
    """The values of `state.TimingState`."""

    first_start: float = 0.0
    last_step: float = 0.0
    training: float = 0.0
    steady: float = 0.0
    steady_steps: int = 0
    restarts: int = 0
    lost_steps: int = 0


class ThroughputMeter:
    """Measures this process, and adds to the totals in the state and in the file.

    Args:
      times: timings in the state, which a restart continues; read at the start, written by
        `note`.
      run_dir: run directory, which holds the file.
      writes: whether this process writes the file; one worker may write for all.
    """

    def __init__(self, times: TimingState, run_dir: str, writes: bool = True) -> None:
        self._times, self._writes = times, writes
        self._path = os.path.join(run_dir, _FILE)
        self._known = self._noted()
        self._calls = 0
        self._launch: dict[str, Any] = {}
        self._beaten = -_BEAT

    def start(self, step: int, *, counts: bool = True) -> None:
        """Detects whether this is a restart, and counts the steps that are repeated because of it.

        Args:
          step: step that the run starts from; 0 if there is no checkpoint to resume from.
          counts: whether steps are to be taken; opening a finished run is no restart.
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
        """Reads the timings of a rolled-back state, but keeps first start, restarts and lost steps.

        Args:
          steps: number of steps that are to be repeated.
          step: current step of the state.
        """
        known, self._known = self._known, self._noted()
        self._known.first_start = known.first_start
        self._known.restarts, self._known.lost_steps = known.restarts, known.lost_steps + steps
        self.note()
        self.beat(step, at_once=True)

    def note(self) -> None:
        """Writes the totals to the state; call it before the state is saved."""
        for name, value in dataclasses.asdict(self._known).items():
            number = as_int64(value) if isinstance(value, int) else as_float64(value)
            getattr(self._times, name).assign(number)

    def _noted(self) -> _Known:
        return _Known(
            **{each.name: getattr(self._times, each.name).numpy().item() for each in _FIELDS}
        )

    def record_call(self, steps: int, seconds: float) -> None:
        """Counts one call of the loop; the rate ignores the first of a process, which traces."""
        self._known.training += seconds
        self._known.last_step = time.time()
        self._calls += 1
        if self._calls > 1:
            self._known.steady += seconds
            self._known.steady_steps += steps

    def record_startup(self, startup_seconds: Mapping[str, float], traces: int) -> None:
        """Records timings of this start, which has taken a step.

        Args:
          startup_seconds: seconds of each part, from the launch to the end of the first step.
          traces: number of times that the loop has been traced.
        """
        self._launch = {"startup_seconds": dict(startup_seconds), "traces": traces}

    @property
    def startup_seconds(self) -> dict[str, float] | None:
        """Timings, by `record_startup`, of the last start that took a step; None without one."""
        return self._launch.get("startup_seconds")

    @property
    def traces(self) -> dict[str, int]:
        """{"train": traces}, as passed to `record_startup`; empty if no start took a step."""
        return {"train": self._launch["traces"]} if self._launch else {}

    def beat(self, step: int, *, at_once: bool = False) -> None:
        """Writes the current step to the file, about once a second.

        Args:
          step: current step.
          at_once: whether to write however short the time since the last write.
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
        """Mean over the calls since the first start, without each start's first; 0 if none."""
        return self._known.steady_steps / self._known.steady if self._known.steady else 0.0

    @property
    def train_seconds(self) -> float:
        """Seconds of the steps since the first start; includes tracing, excludes lost steps."""
        return self._known.training

    @property
    def goodput(self) -> float:
        """`train_seconds` over the wall time from the first start to the last step, 0 to 1."""
        wall = self._known.last_step - self._known.first_start
        return min(1.0, self.train_seconds / wall) if wall > 0 else 0.0

    @property
    def figures(self) -> dict[str, float | int]:
        """Goodput, and the counts that explain its loss."""
        return {
            "goodput": self.goodput,
            "restarts": self._known.restarts,
            "lost_steps": self._known.lost_steps,
        }


_FIELDS = dataclasses.fields(_Known)
_NOTHING = {"step": 0, "restarts": 0, "lost_steps": 0, "first_start": 0.0}
