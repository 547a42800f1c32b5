"""When a training run stops: at its full length, early, by a signal or after `--max_hours`."""

from __future__ import annotations

from engine.assembly.parts import Parts
from engine.distributed.collectives import HostCollectives
from engine.runtime.signals import Signals
from engine.runtime.startup import Startup
from engine.trainer.triggers import Triggers


class StopConditions:
    """Conditions on which a run stops; all workers find the same.

    Args:
      parts: the run.
      triggers: tells at which steps the run is evaluated.
      signals: signals that the process has received.
      collectives: makes the workers agree.
      startup: tells how long ago this command was started.

    Attributes:
      first_step: step at which this command starts.
    """

    def __init__(
        self,
        parts: Parts,
        triggers: Triggers,
        signals: Signals,
        collectives: HostCollectives,
        startup: Startup,
    ) -> None:
        self._state, self._total_steps = parts.state, parts.total_steps
        self._max_hours = parts.config.stopping.max_hours
        self._triggers, self._signals = triggers, signals
        self._collectives, self._startup = collectives, startup
        self.first_step = 0

    def requested(self) -> bool:
        """Returns whether a worker has received a signal that stops the run."""
        return bool(self._signals.agree(self._collectives.max))

    def is_complete(self) -> bool:
        """Returns whether all steps and evaluations are done, or training stopped early."""
        at_end = int(self._state.step) >= self._total_steps and not self.evaluation_due()
        return at_end or bool(int(self._state.patience.stopped))

    def evaluation_due(self) -> bool:
        """Returns whether the current step is one that is evaluated, and is not evaluated yet."""
        step = int(self._state.step)
        return step != int(self._state.last_evaluation_step) and self._triggers.evaluates(step)

    def time_is_up(self) -> bool:
        """Returns whether `--max_hours` have passed since this command was started.

        Returns False without this option, and before this command has taken a step.
        """
        seconds = 3600 * self._max_hours
        if not seconds or int(self._state.step) == self.first_step:
            return False
        return bool(self._collectives.broadcast(int(self._startup.elapsed() >= seconds)))
