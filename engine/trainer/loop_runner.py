"""Runs one call of the training loop, or skips a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine.assembly.parts import Parts
from engine.core.log_points import LogPoint, LogPoints
from engine.core.steps_per_loop import StepsPerLoop, stopwatch
from engine.distributed.collectives import HostCollectives
from engine.logging.throughput import ThroughputMeter
from engine.runtime.startup import Startup
from engine.trainer.bad_batch_dump import BadBatchRecorder
from engine.trainer.bad_steps import BadStep, BadStepDetector
from engine.trainer.train_logging import current_log_point


class RunnerResult(NamedTuple):
    """The result of one call of `LoopRunner.go`.

    Attributes:
      steps: number of steps by which the run advanced, including a skipped step.
      bad_step: bad step that must be rolled back; None if there is none.
      points: log points passed, in order.
    """

    steps: int
    bad_step: BadStep | None
    points: list[LogPoint]


class LoopRunner:
    """Runs the training loop, measures its time, and checks its steps with the bad-step detector.

    Args:
      parts: components of the run.
      detector: bad-step detector of the run.
      meter: throughput meter of the run.
      collectives: collectives of the workers, which all take the same number of steps per call.
      startup: startup timings; this class records the parts up to the end of the first step.
      tell: callback that prints a line for the user.
      recorder: recorder of skipped steps; None: skipped steps are not recorded.
    """

    def __init__(
        self,
        parts: Parts,
        detector: BadStepDetector,
        meter: ThroughputMeter,
        collectives: HostCollectives,
        startup: Startup,
        tell: Callable[[str], None],
        recorder: BadBatchRecorder | None = None,
    ) -> None:
        self.startup_seconds: dict[str, float] | None = None  # by part; None before the first step
        self._parts, self._state, self._detector, self._meter = parts, parts.state, detector, meter
        self._startup, self._tell = startup, tell
        self._steps_per_loop = StepsPerLoop(
            parts.config.loop.fixed_steps_per_loop, agree=collectives.broadcast
        )
        self._recorder = recorder

    def go(self, max_steps: int, points: LogPoints) -> RunnerResult:
        """Takes 1 to `max_steps` steps, or skips the current step.

        Args:
          max_steps: maximum number of steps to take, 1 or more.
          points: log points, at least one of them after the current step.

        Raises:
          ValueError: if `max_steps` is below 1.
        """
        step = int(self._state.step)
        if max_steps < 1:
            raise ValueError(f"{max_steps} steps were asked for at step {step}: must be 1 or more")
        to_left_out = self._detector.steps_until_skipped(step)
        if not to_left_out:
            return self._leave_out(step, points)
        steps = self._steps_per_loop.steps(min(max_steps, to_left_out, points.most_steps(step)))
        if self.startup_seconds is None:
            self._startup.ended("restore")
        started = stopwatch()
        taken = self._parts.loop.run(steps, points)
        seconds = stopwatch() - started
        if self.startup_seconds is None:
            self._startup.ended("step", of_which=("trace", self._parts.loop.trace_seconds))
            self.startup_seconds = self._startup.seconds
            self._meter.record_startup(self.startup_seconds, self._parts.loop.traces)
        self._steps_per_loop.took(taken.steps, seconds)
        self._meter.record_call(taken.steps, seconds)
        self._meter.beat(step + taken.steps)
        bad_step = self._detector.examine(
            step, taken.steps, taken.finite, taken.losses, taken.norms
        )
        return RunnerResult(taken.steps, bad_step, taken.points)

    def _leave_out(self, step: int, points: LogPoints) -> RunnerResult:
        state = self._state
        self.record(BadStep(step, self._detector.left_out[step]))
        state.step.assign_add(1)
        return RunnerResult(
            1, None, [current_log_point(self._parts)] if points.after(step) == 1 else []
        )

    def record(self, bad_step: BadStep) -> None:
        """Records a skipped step, if there is a recorder, and prints a line about it."""
        if self._recorder is not None and (line := self._recorder.record(bad_step)):
            self._tell(line)
