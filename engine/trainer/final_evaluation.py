"""Evaluates a run's final or best weights on the validation and test splits."""

from __future__ import annotations

from collections.abc import Callable

from engine.assembly.parts import Parts
from engine.checkpoint.restore import Restorer
from engine.core import metrics
from engine.distributed.collectives import HostCollectives


class FinalEvaluation:
    """Evaluates the final or best weights of a run at its end.

    Args:
      parts: components of the run.
      restorer: restores the best weights.
      collectives: collectives of the workers; the chief broadcasts the number of the best
        checkpoint.
      tell: callback that prints a line for the user; called once for each split.
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
        self.weights = "final weights"  # description of the evaluated weights

    def evaluate(self, stop: Callable[[], bool]) -> dict[str, dict[str, float | int]] | None:
        """Restores the best weights, if `--restore_best` is set, and evaluates each split.

        Args:
          stop: callback that returns whether to stop; called between two calls of the graph.

        Returns:
          {split: means}; None if `stop` returned True.
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
