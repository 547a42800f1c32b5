"""Takes training steps to be timed, with the work of a training run between graph calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from engine.assembly.parts import Parts
from engine.core.log_points import LogPoint, LogPoints
from engine.core.loop import Loop
from engine.distributed.collectives import HostCollectives
from engine.logging.throughput import ThroughputMeter
from engine.runtime.errors import Interrupted
from engine.runtime.startup import Startup
from engine.trainer.bad_steps import BadStep, bad_step_detector
from engine.trainer.loop_runner import LoopRunner
from pipelines import StreamingFeed


def read_ahead(parts: Parts) -> int:
    """Returns the maximum number of steps that the training feed prefetches; 0: no prefetching."""
    feed = parts.feeds.training
    return feed.prefetched_steps if isinstance(feed, StreamingFeed) else 0


class Stepper:
    """Runner of a training loop for timing, which handles bad steps and writes no files.

    Args:
      parts: run whose state the steps update.
      loop: loop that takes the steps.
      interrupted: returns whether to stop; called before each call of the graph.
      start: variables, and the values that `restart` assigns to them.
      judged: whether the number of bad steps is limited, as in training.
    """

    def __init__(
        self,
        parts: Parts,
        loop: Loop,
        interrupted: Callable[[], bool],
        start: Sequence[tuple[tf.Variable, np.ndarray]] = (),
        *,
        judged: bool = True,
    ) -> None:
        self.left_out = 0  # number of bad steps that training would skip
        self._parts, self._state, self._interrupted = parts, parts.state, interrupted
        self._start, self._judged = start, judged
        self._taken = 0  # steps since the last restart
        self._run = self._run_left_out = 0  # index of the run of total_steps, its bad steps
        self._detector = bad_step_detector(parts)
        self._loop_runner = LoopRunner(
            dataclasses.replace(parts, loop=loop),
            self._detector,
            ThroughputMeter(self._state.timing, "", writes=False),
            HostCollectives(),
            Startup(),
            lambda line: None,
        )

    @property
    def read_ahead(self) -> int:
        """Maximum number of steps that the training feed prefetches; 0: no prefetching."""
        return read_ahead(self._parts)

    def restart(self) -> None:
        """Assigns the values in `start`, and resets the bad-step detector and the step counts.

        `left_out` is not reset.
        """
        for variable, value in self._start:
            variable.assign(value)
        self._detector.load()
        self._taken = self._run = self._run_left_out = 0

    def take(self, steps: int, *, point: bool = False) -> list[LogPoint]:
        """Takes `steps` training steps; returns a list of their log points.

        If `point`, there is one log point, after the last step; else there is none.

        Raises:
          Interrupted: when `interrupted` returns True.
          RuntimeError: when TensorFlow fails or, if `judged`, after more bad steps than training
            may skip.
          ValueError: when the model, task or optimizer is found invalid while the loop is traced.
        """
        points: list[LogPoint] = []
        end = int(self._state.step) + steps
        log_points = LogPoints(last=end) if point else LogPoints()
        while (step := int(self._state.step)) < end:
            if self._interrupted():
                raise Interrupted
            to_end = self._parts.steps_per_epoch - step % self._parts.steps_per_epoch
            passed = self._loop_runner.run(min(end - step, to_end), log_points)
            self._taken += passed.steps
            if passed.bad_step is not None:
                self._leave_out(passed.bad_step)
            points += passed.points
        return points

    def _leave_out(self, bad_step: BadStep) -> None:
        """Counts a bad step and prepares the next one, without the rollback of training.

        A non-finite step has not updated the weights. After any other bad step, the variables in
        `start`, except the step counter, are reset to the values in `start`.

        Raises:
          RuntimeError: if `judged`, when there are more bad steps than `--most_left_out` allows in
            one run.
        """
        if bad_step.reason.updated_weights:
            for variable, value in self._start:
                if variable is not self._state.step:
                    variable.assign(value)
        self._detector.load()
        self.left_out += 1
        # The limit of skipped steps is per run, and a block may be longer than a run.
        run = (self._taken - 1) // self._parts.total_steps
        self._run_left_out = 1 + self._run_left_out * (run == self._run)
        self._run = run
        most = self._parts.config.bad_steps.most_left_out
        if self._judged and self._run_left_out > most:
            raise RuntimeError(
                f"step {bad_step.step:,} is a bad step ({bad_step.reason.label}), one more than "
                f"--most_left_out={most} allows: training would stop here; fix the data, or "
                "lower the learning rate, or raise --most_left_out"
            )
