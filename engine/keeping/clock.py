"""Steps per second, and goodput: what of the time since the first start went into steps.

What a kill cost cannot be in the state, which knows only what it saved. So the step that the run is
at, its starts and the steps that it lost go into a small file beside, about once a second. The same
file keeps the figures of the last start that took steps, for a start that only ends the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from engine.keeping.files import replace_file
from engine.numerics.scalars import real, whole
from engine.state import Times

_FILE = "clock.json"
_BEAT = 1.0  # seconds


@dataclasses.dataclass
class _Known:
    """As in state.Times."""

    first_start: float = 0.0
    last_step: float = 0.0
    training: float = 0.0
    steady: float = 0.0
    steady_steps: int = 0
    restarts: int = 0
    lost_steps: int = 0


class Clock:
    """Measures this process and adds to what the state and the file remember.

    Args:
      times: in the state, so that a restart goes on counting; read at the start, written by `note`.
      run_dir: has the file.
      writes: whether this process writes it; another one may do it for all.
    """

    def __init__(self, times: Times, run_dir: str, writes: bool = True) -> None:
        self._times, self._writes = times, writes
        self._path = os.path.join(run_dir, _FILE)
        self._known = self._noted()
        self._calls = 0
        self._launch: dict[str, Any] = {}
        self._beaten = -_BEAT

    def start(self, step: int, *, counts: bool = True) -> None:
        """Finds out whether this is a restart and how many steps are taken again because of it.

        Args:
          step: that the run starts from; 0 when there was nothing to go on from.
          counts: whether steps are to be taken; looking at a finished run is no restart.
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
        self.went_back(0, step)

    def went_back(self, steps: int, step: int) -> None:
        """The state is an earlier one: what the clock knows is not.

        Args:
          steps: that are to be taken again.
          step: that it is at now.
        """
        known, self._known = self._known, self._noted()
        self._known.first_start = known.first_start
        self._known.restarts, self._known.lost_steps = known.restarts, known.lost_steps + steps
        self.note()
        self.beat(step, at_once=True)

    def note(self) -> None:
        """Takes what is known into the state; call it before that is saved."""
        for name, value in dataclasses.asdict(self._known).items():
            number = whole(value) if isinstance(value, int) else real(value)
            getattr(self._times, name).assign(number)

    def _noted(self) -> _Known:
        return _Known(
            **{each.name: getattr(self._times, each.name).numpy().item() for each in _FIELDS}
        )

    def loop_took(self, steps: int, seconds: float) -> None:
        """Counts one call of the training loop; a process's first is not in the rate: it traces."""
        self._known.training += seconds
        self._known.last_step = time.time()
        self._calls += 1
        if self._calls > 1:
            self._known.steady += seconds
            self._known.steady_steps += steps

    def launched(self, startup_seconds: Mapping[str, float], traces: int) -> None:
        """Remembers figures of this start, which has taken a step.

        Args:
          startup_seconds: of each part, from the launch to the end of the first step.
          traces: how often the loop has been traced.
        """
        self._launch = {"startup_seconds": dict(startup_seconds), "traces": traces}

    @property
    def startup_seconds(self) -> dict[str, float] | None:
        """As `launched`, of the last start that took a step; None where there was none."""
        return self._launch.get("startup_seconds")

    @property
    def traces(self) -> dict[str, int]:
        """{"train": as `launched`}; empty where no start took a step."""
        return {"train": self._launch["traces"]} if self._launch else {}

    def beat(self, step: int, *, at_once: bool = False) -> None:
        """Notes the step that the run is at, about once a second.

        Args:
          step: that one.
          at_once: however short the time since.
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
        with contextlib.suppress(OSError):  # no run ends for want of a figure
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
        """Over all steady calls since the first start; 0 when there was none."""
        return self._known.steady_steps / self._known.steady if self._known.steady else 0.0

    @property
    def train_seconds(self) -> float:
        """Seconds of the steps taken since the first start, tracing included, lost ones not."""
        return self._known.training

    @property
    def goodput(self) -> float:
        """train_seconds over the wall time from the first start to the last step, in 0 to 1."""
        wall = self._known.last_step - self._known.first_start
        return min(1.0, self.train_seconds / wall) if wall > 0 else 0.0

    @property
    def figures(self) -> dict[str, float | int]:
        """Goodput, and what its loss is made of."""
        return {
            "goodput": self.goodput,
            "restarts": self._known.restarts,
            "lost_steps": self._known.lost_steps,
        }


_FIELDS = dataclasses.fields(_Known)
_NOTHING = {"step": 0, "restarts": 0, "lost_steps": 0, "first_start": 0.0}
