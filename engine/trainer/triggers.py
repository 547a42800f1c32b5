"""Computes the steps of log points, periodic checkpoints, epoch ends and the end of training.

Epoch ends are at multiples of the steps per epoch, whatever the total number of steps is. So a run
that is extended later is identical to a run of the greater length.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.core.log_points import NEVER, LogPoints


class StepsUntil(NamedTuple):
    """Numbers of steps, each 1 or more, from the current step to the next events."""

    save: int  # periodic checkpoint; `NEVER` if there are none
    end: int  # end of the epoch or of training, whichever comes first


class Triggers:
    """Schedule of log points, periodic checkpoints, and ends of epochs and training, in steps.

    Args:
      steps_per_epoch: number of steps per epoch, 1 or more.
      total_steps: number of steps after which training ends, 1 or more.
      log_every: number of steps between log points; 0: no log points inside an epoch.
      save_every: number of steps between periodic checkpoints; 0: no periodic checkpoints.

    Raises:
      ValueError: if an argument is out of range.
    """

    def __init__(
        self, *, steps_per_epoch: int, total_steps: int, log_every: int, save_every: int
    ) -> None:
        for name, value, minimum in (
            ("steps_per_epoch", steps_per_epoch, 1),
            ("total_steps", total_steps, 1),
            ("log_every", log_every, 0),
            ("save_every", save_every, 0),
        ):
            if value < minimum:
                raise ValueError(f"{name} is {value}: must be at least {minimum}")
        self.steps_per_epoch, self.total_steps = steps_per_epoch, total_steps
        self._log_every, self._save_every = log_every, save_every

    def due(self, step: int) -> StepsUntil:
        """Returns the numbers of steps from `step` to the next checkpoint and to the epoch's end.

        If training ends inside the epoch, the end of training replaces that of the epoch.

        Raises:
          ValueError: if `step` is not in 0 .. total_steps - 1, so that no step is left to take.
        """
        if not 0 <= step < self.total_steps:
            raise ValueError(f"step {step} of {self.total_steps}: there is no step left to take")
        return StepsUntil(
            _until_multiple(step, self._save_every),
            min(_until_multiple(step, self.steps_per_epoch), self.total_steps - step),
        )

    def points(self, step: int) -> LogPoints:
        """Returns the log points after `step`: multiples of `log_every` inside the epoch.

        The end of the epoch, or of training if that comes first, is the last log point. Raises as
        `due`.
        """
        return LogPoints(self._log_every or NEVER, step + self.due(step).end)

    def logs(self, step: int) -> bool:
        """Returns whether `step` is a multiple of `log_every` inside an epoch, not at its end."""
        return bool(self._log_every) and step % self._log_every == 0 and not self.ends_epoch(step)

    def ends_epoch(self, step: int) -> bool:
        """Returns whether an epoch ends after `step` steps; also True for 0 steps."""
        return step % self.steps_per_epoch == 0

    def epoch(self, step: int) -> int:
        """Returns the epoch, counted from 1, that contains `step` or ends at it; 1 for step 0."""
        return max(1, -(-step // self.steps_per_epoch))

    @property
    def epochs(self) -> int:
        """Number of epochs of training, which may end inside the last one."""
        return self.epoch(self.total_steps)


def _until_multiple(step: int, every: int) -> int:
    return every - step % every if every else NEVER
