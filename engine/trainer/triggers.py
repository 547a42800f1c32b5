"""Computes the steps of log points, periodic checkpoints, evaluations and the end of training.

Evaluations are at multiples of a number of steps, whatever the total number of steps is. So a run
that is extended later is identical to a run of the greater length.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.core.log_points import NEVER, LogPoints


class StepsUntil(NamedTuple):
    """Numbers of steps, each 1 or more, from the current step to the next events."""

    save: int  # periodic checkpoint, or one that is kept; `NEVER` if there are none
    end: int  # evaluation, end of the epoch or end of training, whichever comes first


class Triggers:
    """Schedule, in steps, of log points, checkpoints, evaluations, and ends of epochs and training.

    Args:
      steps_per_epoch: number of steps per epoch, 1 or more.
      total_steps: number of steps after which training ends, 1 or more.
      evaluate_every: number of steps between evaluations, 1 or more.
      log_every: number of steps between log points; 0: no log points between evaluations.
      save_every: number of steps between periodic checkpoints; 0: no periodic checkpoints.
      keep_every: number of steps between checkpoints that are kept for good; 0: there are none.

    Raises:
      ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        *,
        steps_per_epoch: int,
        total_steps: int,
        evaluate_every: int,
        log_every: int,
        save_every: int,
        keep_every: int = 0,
    ) -> None:
        for name, value, minimum in (
            ("steps_per_epoch", steps_per_epoch, 1),
            ("total_steps", total_steps, 1),
            ("evaluate_every", evaluate_every, 1),
            ("log_every", log_every, 0),
            ("save_every", save_every, 0),
            ("keep_every", keep_every, 0),
        ):
            if value < minimum:
                raise ValueError(f"{name} is {value}: must be at least {minimum}")
        self.steps_per_epoch, self.total_steps = steps_per_epoch, total_steps
        self.evaluate_every = evaluate_every
        self._log_every, self._save_every, self._keep_every = log_every, save_every, keep_every

    def due(self, step: int) -> StepsUntil:
        """Returns the numbers of steps from `step` to the next checkpoint and to the next stop.

        The stop is an evaluation, the end of the epoch or the end of training.

        Raises:
          ValueError: if `step` is not in 0 .. total_steps - 1, so that no step is left to take.
        """
        if not 0 <= step < self.total_steps:
            raise ValueError(f"step {step} of {self.total_steps}: there is no step left to take")
        return StepsUntil(
            min(_until_multiple(step, every) for every in (self._save_every, self._keep_every)),
            min(
                _until_multiple(step, self.evaluate_every),
                _until_multiple(step, self.steps_per_epoch),
                self.total_steps - step,
            ),
        )

    def points(self, step: int) -> LogPoints:
        """Returns the log points after `step`: multiples of `log_every`, and one last log point.

        The last one is the next evaluation, end of an epoch or end of training.

        Raises:
          ValueError: if `step` is not in 0 .. total_steps - 1.
        """
        return LogPoints(self._log_every or NEVER, step + self.due(step).end)

    def logs(self, step: int) -> bool:
        """Returns whether `step` is a multiple of `log_every` and has no evaluation.

        Returns False if `log_every` is 0.
        """
        return bool(self._log_every) and step % self._log_every == 0 and not self.evaluates(step)

    def keeps(self, step: int) -> bool:
        """Returns whether the checkpoint of `step` is kept for good; False for step 0."""
        return bool(self._keep_every and step) and step % self._keep_every == 0

    def evaluates(self, step: int) -> bool:
        """Returns whether there is an evaluation after `step` steps; also True for 0 steps."""
        return step % self.evaluate_every == 0

    def epoch(self, step: int) -> int:
        """Returns the epoch, counted from 1, that contains `step` or ends at it; 1 for step 0."""
        return max(1, -(-step // self.steps_per_epoch))

    @property
    def epochs(self) -> int:
        """Number of epochs of training, which may end inside the last one."""
        return self.epoch(self.total_steps)


def _until_multiple(step: int, every: int) -> int:
    return every - step % every if every else NEVER
