"""The weights that a run ends with, on what was held out."""

from __future__ import annotations

from collections.abc import Callable

from engine import metrics
from engine.assembly import Parts
from engine.keeping.restorer import Restorer
from engine.workers.crew import Crew


class HeldOut:
    """Scores the end of a run.

    Args:
      parts: of the run.
      restorer: has the best weights.
      crew: the workers; the chief knows which checkpoint is the best.
      tell: is given a line for a person for each split.
    """

    def __init__(
        self, parts: Parts, restorer: Restorer, crew: Crew, tell: Callable[[str], None]
    ) -> None:
        self._parts, self._restorer, self._crew, self._tell = parts, restorer, crew, tell
        self.weights = "final weights"  # which ones were scored, in words

    def evaluate(self, stop: Callable[[], bool]) -> dict[str, dict[str, float | int]] | None:
        """Loads the weights of the best step, unless the last ones are wanted, and scores them.

        Args:
          stop: whether to stop, asked between two calls of the graph.

        Returns:
          {split: means}; None when it was stopped.
        """
        best = int(self._parts.state.best.step)
        number = 0
        if self._parts.config.stopping.restore_best and best >= 0:
            number = self._crew.of_chief(self._restorer.best_number())
        if number:
            self._restorer.best_weights(number)
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
