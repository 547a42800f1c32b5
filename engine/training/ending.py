"""The end of a run: what came of it is scored, drawn and written, result.json last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.assembly import Parts
from engine.keeping.clock import Clock
from engine.keeping.signals import Signals
from engine.training import result
from engine.training.curves import Curves
from engine.training.held_out import HeldOut
from engine.workers.crew import Crew


class Ending:
    """Ends a run whose last step is taken.

    Args:
      parts: of the run.
      held_out: scores its weights.
      signals: whether to stop.
      crew: the workers; all score, and the chief writes.
      clock: of the same state.
      curves: that are written.
      tell: is given a line for a person now and then.
    """

    def __init__(
        self,
        parts: Parts,
        held_out: HeldOut,
        signals: Signals,
        crew: Crew,
        *,
        clock: Clock,
        curves: Curves,
        tell: Callable[[str], None],
    ) -> None:
        self._parts, self._held_out, self._signals, self._crew = parts, held_out, signals, crew
        self._clock, self._curves, self._tell = clock, curves, tell

    def run(
        self,
        *,
        epoch: int,
        metric: str,
        left_out: Sequence[int],
    ) -> bool:
        """Evaluates what was held out, writes the report and the result.

        Args:
          epoch: that it ended in.
          metric: by which the best is chosen.
          left_out: steps that were.

        Returns:
          Whether it came to its end: not where a signal came.

        Raises:
          OSError: when a file cannot be written.
          RuntimeError: when TensorFlow fails.
        """
        results = self._held_out.evaluate(lambda: bool(self._signals.agree(self._crew.most)))
        if results is None:
            return False
        if "test" in results:
            self._curves.scored("test", results["test"])
        if not self._crew.is_chief:
            return True
        outcome = result.outcome(
            self._parts,
            self._clock,
            epoch=epoch,
            metric=metric,
            held_out=results,
            startup_seconds=self._clock.startup_seconds,
            left_out=left_out,
        )
        config = self._parts.config
        if config.keeping.report and not self._report(outcome):
            return False
        self._tell(result.write(config.run.run_dir, outcome))
        return True

    def _report(self, outcome: Mapping[str, Any]) -> bool:
        """Draws what came of it; whether it came to its end."""
        from engine.reporting import report, shown  # Matplotlib comes with them

        best = int(self._parts.state.best.step)
        about = report.about_run(
            self._parts,
            outcome,
            self._held_out.weights,
            best if best >= 0 else None,
            lambda: bool(self._signals.received),  # of the chief alone
        )
        if about is None:
            return False
        self._tell(report.write(self._parts.config.run.run_dir, about))
        shown.show(self._parts, about.pictures)
        return True
