"""Evaluates a run's final or best weights on the validation and test splits."""

from __future__ import annotations

from collections.abc import Callable

from engine.assembly.parts import Parts
from engine.checkpoint.restore import Restorer
from engine.core import metrics
from engine.distributed.collectives import HostCollectives


class FinalEvaluation:
    """Evaluates a run at its end.

    Args:
      parts: the run's parts.
      restorer: restorer of the best weights.
      collectives: the workers; the chief knows which checkpoint is the best.
      tell: callback for a line for the user on each split.
    """

    def __init__(
        self,
        parts: Parts,
        restorer: Restorer,
        collectives: HostCollectives,
        tell: Callable[[str], None],
    ) -> None:
        self._parts, self._restorer, self._collectives, self._tell = (
            parts,
            restorer,
            collectives,
            tell,
        )
        self.weights = "final weights"  # the evaluated weights, in words

    def evaluate(self, stop: Callable[[], bool]) -> dict[str, dict[str, float | int]] | None:
        """Loads the weights of the best step, if `--restore_best` asks for them, and evaluates.

        Args:
          stop: callback that returns whether to stop, called between two calls of the graph.

        Returns:
          {split: means}; None if stopped.
        """
        best = int(self._parts.state.best.step)
        number = 0
        if self._parts.config.stopping.restore_best and best >= 0:
            number = self._collectives.broadcast(self._restorer.best_number())
        if number:
            self._restorer.restore_best_weights(number)
            self.weights = f"weights of step {best:,}, the best"
        results = {}
        for split, evaluation in self._parts.evaluations.items():
            means = evaluation.run(stop)
            if means is None:
                return None
            results[split] = means
            self._tell(
                f"{split} {metrics.brief(means)} of {means['examples']:,} examples ({self.weights})"
            )
        return results
