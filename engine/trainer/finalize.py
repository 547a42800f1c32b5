"""Finishes a run: runs the final evaluation, writes the report, and writes result.json last."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.assembly.parts import Parts
from engine.checkpoint.restore import Restorer
from engine.core import metrics
from engine.distributed.collectives import HostCollectives
from engine.logging.throughput import ThroughputMeter
from engine.runtime.signals import Signals
from engine.trainer import result
from engine.trainer.train_logging import TrainLogger


@dataclasses.dataclass(frozen=True)
class Finalizer:
    """The last phase of a run, after all steps: evaluation, report and result.json.

    All workers evaluate; only the chief writes files. A signal stops evaluation and report.
    """

    parts: Parts
    restorer: Restorer
    signals: Signals
    collectives: HostCollectives
    meter: ThroughputMeter
    train_logger: TrainLogger
    print_line: Callable[[str], None]

    def run(
        self, *, epoch: int, metric: str, stopped: tuple[str, str], left_out: Sequence[int]
    ) -> bool:
        """Evaluates validation sets and test split, then writes report, if any, and result.json.

        With `--restore_best`, the best weights, if any, are restored before.

        Args:
          epoch: epoch, counted from 1, in which training ended.
          metric: name of the monitored metric, such as "validation_accuracy".
          stopped: option that ended training early, and the reason as text; ("", "") if none.
          left_out: numbers, from 0, of the skipped steps.

        Returns:
          Whether the run is finished; False if a signal stopped evaluation or report.

        Raises:
          OSError: if a file cannot be written, or the best checkpoint cannot be loaded.
          ValueError: if the report finds damaged data, or if a metric fails.
          RuntimeError: if TensorFlow fails.
        """
        weights_step = self._restore_best()
        weights = "final weights"
        if weights_step is not None:
            weights = f"weights of step {weights_step:,}, the best"
        results = self._evaluate(weights)
        if results is None:
            return False
        if "test" in results:
            self.train_logger.scored("test", results["test"])
        if not self.collectives.is_chief:
            return True
        outcome = result.outcome(
            self.parts,
            self.meter,
            epoch=epoch,
            metric=metric,
            stopped=stopped,
            weights_step=weights_step,
            results=results,
            left_out=left_out,
        )
        config = self.parts.config
        if config.report.report and not self._report(outcome, weights):
            return False
        self.print_line(result.write(config.run.run_dir, outcome))
        return True

    def _restore_best(self) -> int | None:
        """Restores the best weights, if any, with `--restore_best`; returns their step, or None."""
        best = int(self.parts.state.best.step)
        number = 0
        if self.parts.config.stopping.restore_best and best >= 0:
            number = self.collectives.broadcast(self.restorer.best_number())
        if not number:
            return None
        self.restorer.restore_best_weights(number)
        return best

    def _evaluate(self, weights: str) -> dict[str, dict[str, float | int]] | None:
        """Returns {split: {metric: value}} of validation sets and test split; None if interrupted.

        Also prints a line for each split, with `weights`, the description of the weights.
        """
        results = {}
        for split, evaluation in self.parts.evaluations.items():
            means = evaluation.run(lambda: bool(self.signals.agree(self.collectives.max)))
            if means is None:
                return None
            results[split] = means
            shown = metrics.brief(means, self.parts.task.metrics)
            self.print_line(f"{split} {shown} of {means['examples']:,} examples ({weights})")
        return results

    def _report(self, outcome: Mapping[str, Any], weights: str) -> bool:
        """Writes the report and TensorBoard summaries; returns False if interrupted, else True.

        `outcome` is the content of result.json, `weights` a description of the weights.
        """
        from engine.reporting import report, tensorboard_report  # imports Matplotlib

        best = int(self.parts.state.best.step)
        content = report.build_run_report(
            self.parts,
            outcome,
            weights,
            best if best >= 0 else None,
            lambda: bool(self.signals.received),  # those of the chief only
        )
        if content is None:
            return False
        self.print_line(report.write(self.parts.config.run.run_dir, content))
        tensorboard_report.show(self.parts, content.pictures)
        return True
