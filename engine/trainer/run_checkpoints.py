"""The checkpoints of a run that trains: when to save, saving, and restoring the newest one."""

from __future__ import annotations

from engine.assembly.data import cache_dir
from engine.assembly.description import RunDescription
from engine.assembly.parts import Parts
from engine.checkpoint.catalog import checkpoint_number
from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.restore import Restorer
from engine.core.steps_per_loop import stopwatch
from engine.distributed.collectives import HostCollectives
from engine.logging.throughput import ThroughputMeter
from engine.trainer.triggers import Triggers


class RunCheckpoints:
    """Saver and restorer of the state of a run.

    All workers make the same decisions, and only the chief writes files.

    Args:
      parts: the run.
      triggers: tells which checkpoints are kept for good.
      meter: takes note of the time of training so far before each save.
      collectives: makes the workers agree on what is restored, and on when to save.
    """

    def __init__(
        self,
        parts: Parts,
        triggers: Triggers,
        meter: ThroughputMeter,
        collectives: HostCollectives,
    ) -> None:
        config, chief = parts.config, collectives.is_chief
        self._state, self._triggers, self._meter = parts.state, triggers, meter
        self._collectives = collectives
        self._seconds = config.checkpoints.checkpoint_seconds
        self._manager = CheckpointManager(
            config.run.run_dir,
            parts.state,
            config.checkpoints.keep,
            data=parts.data,
            describe=RunDescription(parts.source, cache_dir(config), parts.jit_obstacle),
            writes=chief,
        )
        self.restorer = Restorer(config.run.run_dir, parts.state, data=parts.data, writes=chief)
        self._saved_at = stopwatch()

    def restore(self) -> tuple[bool, list[str]]:
        """Restores the newest intact checkpoint, which the chief chooses.

        Returns:
          Whether there is one, and the problems that were found, one line each.

        Raises:
          OSError, ValueError: as in `Restorer.newest`.
          RuntimeError: if the workers do not restore the same step.
        """
        chief = self._collectives.is_chief
        path, problems = self.restorer.newest() if chief else (None, [])
        number = self._collectives.broadcast(checkpoint_number(path))
        if not chief:
            self.restorer.same(number)
        self._collectives.same("step to resume from", int(self._state.step))
        return number > 0, problems

    def tidy(self, restored: bool) -> None:
        """Removes what a kill has left: unfinished files and, if `restored`, old checkpoints."""
        self.restorer.tidy()
        if restored:
            self._manager.tidy(kept=self._triggers.keeps(int(self._state.step)))

    def time_is_up(self) -> bool:
        """Returns whether `--checkpoint_seconds` have passed since the last save."""
        due = stopwatch() - self._saved_at >= self._seconds
        return bool(self._seconds and self._collectives.broadcast(int(due)))

    def save_initial(self) -> None:
        """Saves the initial state of a new run in a background thread."""
        self._manager.save()

    def save(self, *, best: bool = False, soon: bool = False) -> None:
        """Saves the current state in a background thread, also for good where that is due.

        Args:
          best: whether to save it as one of the best checkpoints, too.
          soon: whether a later save may replace this one while it is queued.

        Raises:
          OSError: if an earlier save failed.
        """
        self._meter.note()
        kept = self._triggers.keeps(int(self._state.step))
        self._manager.save(best=best, kept=kept, soon=soon)
        self._saved_at = stopwatch()

    def save_and_wait(self) -> None:
        """Saves the current state after pending saves.

        Raises:
          OSError: if this or an earlier save failed.
        """
        self._manager.save_and_wait()

    def check(self) -> None:
        """Raises OSError if a save has failed since the last check."""
        self._manager.check()

    def finish(self) -> None:
        """Waits for pending saves, then raises OSError if one has failed."""
        self._manager.finish()

    def close(self) -> None:
        """Waits for pending saves and ends the background thread; ignores errors of saves."""
        self._manager.close()
