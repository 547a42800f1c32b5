"""Restores a run from its newest checkpoint, with what depends on the step; rolls a run back."""

from __future__ import annotations

from collections.abc import Callable

from engine.core.state import TrainState
from engine.logging.metric_writer import MetricWriter
from engine.logging.throughput import ThroughputMeter
from engine.trainer.bad_steps import BadStep, BadStepDetector, TooManyBadStepsError
from engine.trainer.loop_runner import LoopRunner
from engine.trainer.run_checkpoints import RunCheckpoints


class Restoration:
    """Restorer of a run's checkpoint, its bad-step detector and its log files.

    Args:
      state: training state of the run.
      checkpoints: checkpoints of the run.
      detector: bad-step detector, whose state is part of the training state.
      loop_runner: records a bad step that ends the run.
      meter: counts the steps that are lost.
      metric_writer: writer of the log files.
      print_line: prints a line.
    """

    def __init__(
        self,
        state: TrainState,
        checkpoints: RunCheckpoints,
        detector: BadStepDetector,
        loop_runner: LoopRunner,
        meter: ThroughputMeter,
        metric_writer: MetricWriter,
        print_line: Callable[[str], None],
    ) -> None:
        self._state, self._checkpoints, self._detector = state, checkpoints, detector
        self._loop_runner, self._meter, self._metric_writer = loop_runner, meter, metric_writer
        self._print_line = print_line

    def restore(self) -> bool:
        """Restores the newest intact checkpoint; returns whether there is one.

        Also prints the problems that were found, and loads the state of the bad-step detector.

        Raises:
          OSError, ValueError, RuntimeError: as in `RunCheckpoints.restore`.
        """
        restored, problems = self._checkpoints.restore()
        for problem in problems:
            self._print_line(problem)
        self._detector.load()
        return restored

    def rewind(self) -> None:
        """Removes the metrics logged after the restored step from all log files."""
        self._metric_writer.rewind(
            int(self._state.last_logged_step), int(self._state.last_evaluation_step)
        )

    def roll_back(self, bad_step: BadStep) -> int:
        """Rolls back to the last checkpoint, adds the bad step to the steps to skip, and saves.

        Returns the step of the checkpoint.

        Raises:
          OSError, ValueError, RuntimeError: as in `RunCheckpoints.restore`.
          TooManyBadStepsError: if the run may not skip one more bad step.
        """
        reached = int(self._state.step)
        self._checkpoints.finish()
        self.restore()
        try:
            self._detector.leave_out(bad_step)
        except TooManyBadStepsError:
            self._loop_runner.record(bad_step)
            raise
        step = int(self._state.step)
        self._meter.roll_back(reached - step, step)
        self._checkpoints.save_and_wait()
        self._metric_writer.close()
        self.rewind()
        return step
