"""When things are due, in steps: points of the curves, saves, ends of epochs and of the run."""

from __future__ import annotations

from typing import NamedTuple

from engine.points import NEVER, Points


class Due(NamedTuple):
    """Steps from where a run is to what comes next; each 1 or more."""

    save: int
    end: int  # of the epoch or of the run


class Timetable:
    """Plain arithmetic on step numbers, counted from 0 at the start of the run.

    Args:
      steps_per_epoch: 1 or more.
      total_steps: of the whole run.
      log_every: steps between points of the training curves.
      save_every: steps between checkpoints inside an epoch; 0: none.
    """

    def __init__(
        self, *, steps_per_epoch: int, total_steps: int, log_every: int, save_every: int
    ) -> None:
        self.steps_per_epoch, self.total_steps = steps_per_epoch, total_steps
        self._log_every, self._save_every = log_every, save_every

    def due(self, step: int) -> Due:
        """What comes next, at `step` < total_steps."""
        return Due(
            _until_multiple(step, self._save_every),
            min(_until_multiple(step, self.steps_per_epoch), self.total_steps - step),
        )

    def points(self, step: int) -> Points:
        """Which steps from `step` are points of the curves: the epoch's end is one."""
        return Points(self._log_every or NEVER, step + self.due(step).end)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch, or the run, ends after `step` steps."""
        return step % self.steps_per_epoch == 0 or step == self.total_steps

    def epoch(self, step: int) -> int:
        """The epoch that `step` ends or lies in, counted from 1."""
        return max(1, -(-step // self.steps_per_epoch))

    @property
    def epochs(self) -> int:
        """How many there are; the last one may be cut short."""
        return self.epoch(self.total_steps)


def _until_multiple(step: int, every: int) -> int:
    return every - step % every if every else NEVER
