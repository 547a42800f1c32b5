"""When things are due, in steps: points of the curves, saves, ends of epochs and of the command.

Epoch ends are events of the trajectory: they lie at multiples of an epoch's steps, whatever length
a command asks for. Where a command ends does not belong to the trajectory, so that a run which is
lengthened later is the run that had the greater length from the start.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.points import NEVER, Points


class Due(NamedTuple):
    """Steps from the present step to what comes next; each 1 or more."""

    save: int
    end: int  # of the epoch or of the command, whichever comes first


class Timetable:
    """Plain arithmetic on step numbers, counted from 0 at the start of the run.

    Args:
      steps_per_epoch: 1 or more.
      total_steps: after which the command ends, 1 or more.
      log_every: steps between points of the training curves; 0: none inside an epoch.
      save_every: steps between checkpoints inside an epoch; 0: none.

    Raises:
      ValueError: for a length out of range.
    """

    def __init__(
        self, *, steps_per_epoch: int, total_steps: int, log_every: int, save_every: int
    ) -> None:
        for name, value, least in (
            ("steps_per_epoch", steps_per_epoch, 1),
            ("total_steps", total_steps, 1),
            ("log_every", log_every, 0),
            ("save_every", save_every, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}: must be at least {least}")
        self.steps_per_epoch, self.total_steps = steps_per_epoch, total_steps
        self._log_every, self._save_every = log_every, save_every

    def due(self, step: int) -> Due:
        """Returns how far it is from `step` to what comes next.

        Raises:
          ValueError: when no step is left to take: `step` must be in 0 .. total_steps - 1.
        """
        if not 0 <= step < self.total_steps:
            raise ValueError(f"step {step} of {self.total_steps}: there is no step left to take")
        return Due(
            _until_multiple(step, self._save_every),
            min(_until_multiple(step, self.steps_per_epoch), self.total_steps - step),
        )

    def points(self, step: int) -> Points:
        """Returns which steps from `step` are points: an epoch's end and the command's are."""
        return Points(self._log_every or NEVER, step + self.due(step).end)

    def logs(self, step: int) -> bool:
        """Whether the training curves have a point at `step` inside an epoch."""
        return bool(self._log_every) and step % self._log_every == 0 and not self.ends_epoch(step)

    def ends_epoch(self, step: int) -> bool:
        """Whether a whole epoch ends after `step` steps."""
        return step % self.steps_per_epoch == 0

    def epoch(self, step: int) -> int:
        """The epoch that `step` ends or lies in, counted from 1."""
        return max(1, -(-step // self.steps_per_epoch))

    @property
    def epochs(self) -> int:
        """How many there are; the command may end inside the last one."""
        return self.epoch(self.total_steps)


def _until_multiple(step: int, every: int) -> int:
    return every - step % every if every else NEVER
