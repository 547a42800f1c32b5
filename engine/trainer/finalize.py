"""Finishes a run: runs the final evaluation, writes the report, and writes result.json last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.assembly.parts import Parts
from engine.distributed.collectives import HostCollectives
from engine.logging.throughput import ThroughputMeter
from engine.runtime.signals import Signals
from engine.trainer import result
from engine.trainer.final_evaluation import FinalEvaluation
from engine.trainer.train_logging import TrainLogger


class Finalizer:
    """Evaluates a run after its last step, and writes its report and result.json.

    Args:
      parts: components of the run.
      held_out: final evaluation of the run.
      signals: signals received; any of them interrupts the evaluation and the report.
      collectives: collectives of the workers; all workers evaluate, only the chief writes files.
      meter: throughput meter of the run.
      train_logger: logger of the metrics.
      tell: callback that prints a line for the user.
    """

    def __init__(
        self,
        parts: Parts,
        held_out: FinalEvaluation,
        signals: Signals,
        collectives: HostCollectives,
        *,
        meter: ThroughputMeter,
        train_logger: TrainLogger,
        tell: Callable[[str], None],
    ) -> None:
        self._parts, self._held_out, self._signals, self._collectives = (
            parts,
            held_out,
            signals,
            collectives,
        )
        self._meter, self._train_logger, self._tell = meter, train_logger, tell

    def run(
        self,
        *,
        epoch: int,
        metric: str,
        left_out: Sequence[int],
    ) -> bool:
        """Evaluates the validation and test splits, and writes the report and result.json.

        Args:
          epoch: epoch in which the run ended, counted from 1.
          metric: name of the monitored metric.
          left_out: numbers of the skipped steps.

        Returns:
          Whether the run is finished; False if a signal interrupted it.

        Raises:
          OSError: if a file cannot be written.
          RuntimeError: if a TensorFlow operation fails.
        """
        results = self._held_out.evaluate(lambda: bool(self._signals.agree(self._collectives.max)))
        if results is None:
            return False
        if "test" in results:
            self._train_logger.scored("test", results["test"])
        if not self._collectives.is_chief:
            return True
        outcome = result.outcome(
            self._parts,
            self._meter,
            epoch=epoch,
            metric=metric,
            held_out=results,
            startup_seconds=self._meter.startup_seconds,
            left_out=left_out,
        )
        config = self._parts.config
        if config.report.report and not self._report(outcome):
            return False
        self._tell(result.write(config.run.run_dir, outcome))
        return True

    def _report(self, outcome: Mapping[str, Any]) -> bool:
        """Writes the report; returns False if interrupted, else True."""
        from engine.reporting import report, tensorboard_report  # imports Matplotlib

        best = int(self._parts.state.best.step)
        about = report.build_run_report(
            self._parts,
            outcome,
            self._held_out.weights,
            best if best >= 0 else None,
            lambda: bool(self._signals.received),  # those of the chief only
        )
        if about is None:
            return False
        self._tell(report.write(self._parts.config.run.run_dir, about))
        tensorboard_report.show(self._parts, about.pictures)
        return True
