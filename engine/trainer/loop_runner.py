"""Runs calls of the compiled training loop, detects their bad steps, and skips steps."""

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
    """Result of `LoopRunner.run`: steps taken or skipped, bad step, and log points."""

    steps: int  # number of steps by which the run advanced, including a skipped step
    bad_step: BadStep | None  # bad step that must be rolled back; None: none
    points: list[LogPoint]  # log points passed, in order


class LoopRunner:
    """Runner of the training loop, which times the calls of the graph and detects bad steps.

    All workers take the same number of steps per call.

    Args:
      parts: run, with the loop.
      detector: detector of bad steps, which also knows the steps to skip.
      meter: records the durations of calls and of the startup.
      collectives: makes the workers agree on the number of steps.
      startup: records the durations of the restore and of the first call.
      print_line: prints messages about skipped steps.
      recorder: writes the examples of skipped steps; None on all workers but one.
      compiled: called after the first call of the graph, which compiles it.
    """

    def __init__(
        self,
        parts: Parts,
        detector: BadStepDetector,
        meter: ThroughputMeter,
        collectives: HostCollectives,
        startup: Startup,
        print_line: Callable[[str], None],
        recorder: BadBatchRecorder | None = None,
        compiled: Callable[[], None] = lambda: None,
    ) -> None:
        self._parts, self._state, self._detector, self._meter = parts, parts.state, detector, meter
        self._startup, self._print_line, self._recorder = startup, print_line, recorder
        self._compiled = compiled
        self._started = False  # whether a call of the graph has ended
        self._steps_per_loop = StepsPerLoop(
            parts.config.loop.fixed_steps_per_loop, agree=collectives.broadcast
        )

    def run(self, max_steps: int, points: LogPoints) -> RunnerResult:
        """Takes 1 to `max_steps` steps in a loop call, or skips one step; returns the result.

        Args:
          max_steps: maximum number of steps to take, 1 or more.
          points: log points, at least one of them after the current step.

        Raises:
          ValueError: if `max_steps` is below 1, if no log point is after the current step, or if
            the examples of a skipped step are damaged.
          OSError: if the examples of a skipped step cannot be read, or if the record of the step
            cannot be written.
          RuntimeError: if TensorFlow fails in a step, or if the feed cannot read its examples.
        """
        step = int(self._state.step)
        if max_steps < 1:
            raise ValueError(f"{max_steps} steps were requested at step {step}: must be 1 or more")
        steps_until_skipped = self._detector.steps_until_skipped(step)
        if not steps_until_skipped:
            return self._skip(step, points)
        max_steps = min(max_steps, steps_until_skipped, self._parts.loop.most_steps(points))
        steps = self._steps_per_loop.steps(max_steps)
        if not self._started:
            self._startup.ended("restore")
        start = stopwatch()
        taken = self._parts.loop.run(steps, points)
        seconds = stopwatch() - start
        if not self._started:
            self._started = True
            self._startup.ended("step")
            self._meter.record_startup(self._startup.seconds, self._parts.loop.traces)
            self._compiled()
        self._steps_per_loop.took(taken.computed, seconds)
        self._meter.record_call(taken.steps, seconds, taken.waited)
        self._meter.beat(step + taken.steps)
        bad_step = self._detector.examine(
            step, taken.steps, taken.finite, taken.losses, taken.norms
        )
        return RunnerResult(taken.steps, bad_step, taken.points)

    def _skip(self, step: int, points: LogPoints) -> RunnerResult:
        self.record(BadStep(step, self._detector.left_out[step]))
        self._state.step.assign_add(1)
        passed = [current_log_point(self._parts)] if points.after(step) == 1 else []
        return RunnerResult(1, None, passed)

    def record(self, bad_step: BadStep) -> None:
        """Records the examples of a skipped step, and prints a message.

        Does nothing without a recorder, or if the step is already recorded.

        Raises:
          OSError: if the record cannot be written, or a file of the data set cannot be read.
          ValueError: if a file of the data set is damaged.
        """
        if self._recorder is not None and (line := self._recorder.record(bad_step)):
            self._print_line(line)
