"""Steps per second, and goodput: what of the time since the first start went into steps.

What a kill cost cannot be in the state, which knows only what it saved. So the step that the run is
at, its starts and the steps that it lost go into a small file beside, about once a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from engine.keeping.files import replace_file
from engine.scalars import real, whole
from engine.state import Times

_FILE = "clock.json"
_BEAT = 1.0  # seconds


class Clock:
    """Measures this process and adds to what the state and the file remember.

    Args:
      times: in the state, so that a restart goes on counting.
      run_dir: has the file.
      writes: whether this process writes it; another one may do it for all.
    """

    def __init__(self, times: Times, run_dir: str, writes: bool = True) -> None:
        self._times, self._writes = times, writes
        self._path = os.path.join(run_dir, _FILE)
        self._known = 0, 0, 0.0  # restarts, lost steps, first start
        self._calls = 0
        self._beaten = -_BEAT

    def start(self, step: int, *, counts: bool = True) -> None:
        """Finds out whether this is a restart and how many steps are taken again because of it.

        Args:
          step: that the run starts from; 0 when there was nothing to go on from.
          counts: whether steps are to be taken; looking at a finished run is no restart.
        """
        times, before = self._times, self._read()
        restarts = max(int(times.restarts), before.get("restarts", 0))
        lost = max(int(times.lost_steps), before.get("lost_steps", 0))
        if counts and (before or step):
            restarts += 1
            lost += max(0, before.get("step", step) - step)
        first_start = float(times.first_start) or before.get("first_start", time.time())
        self._known = restarts, lost, first_start
        self.went_back(0, step)

    def went_back(self, steps: int, step: int) -> None:
        """The state is an earlier one: what the clock knows is not.

        Args:
          steps: that are to be taken again.
          step: that it is at now.
        """
        restarts, lost, first_start = self._known
        self._known = restarts, lost + steps, first_start
        self._times.restarts.assign(whole(restarts))
        self._times.lost_steps.assign(whole(lost + steps))
        self._times.first_start.assign(real(first_start))
        self.beat(step, at_once=True)

    def loop_took(self, steps: int, seconds: float) -> None:
        """Counts one call of the training loop; a process's first is not in the rate: it traces."""
        self._times.training.assign_add(real(seconds))
        self._times.last_step.assign(real(time.time()))
        self._calls += 1
        if self._calls > 1:
            self._times.steady.assign_add(real(seconds))
            self._times.steady_steps.assign_add(whole(steps))

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
            "restarts": int(self._times.restarts),
            "lost_steps": int(self._times.lost_steps),
            "first_start": float(self._times.first_start),
        }
        with contextlib.suppress(OSError):  # no run ends for want of a figure
            replace_file(self._path, json.dumps(known) + "\n", durable=False)

    def _read(self) -> dict:
        try:
            with open(self._path, encoding="utf-8") as file:
                known = json.load(file)
            return {name: type(value)(known[name]) for name, value in _NOTHING.items()}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @property
    def steps_per_second(self) -> float:
        """Over all steady calls since the first start; 0 when there was none."""
        seconds = float(self._times.steady)
        return int(self._times.steady_steps) / seconds if seconds else 0.0

    @property
    def train_seconds(self) -> float:
        """Seconds of the steps taken since the first start, tracing included, lost ones not."""
        return float(self._times.training)

    @property
    def goodput(self) -> float:
        """train_seconds over the wall time from the first start to the last step, in 0 to 1."""
        wall = float(self._times.last_step) - float(self._times.first_start)
        return min(1.0, self.train_seconds / wall) if wall > 0 else 0.0

    @property
    def figures(self) -> dict[str, float | int]:
        """Goodput, and what its loss is made of."""
        return {
            "goodput": self.goodput,
            "restarts": int(self._times.restarts),
            "lost_steps": int(self._times.lost_steps),
        }


_NOTHING = {"step": 0, "restarts": 0, "lost_steps": 0, "first_start": 0.0}
