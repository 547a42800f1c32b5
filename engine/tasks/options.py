"""Options of the task."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, names_in, option
from engine.tasks.registry import METRICS, TASKS


@dataclasses.dataclass(frozen=True)
class TaskOptions(OptionGroup):
    """Task: loss and metrics."""

    task: str = option(
        "classification",
        "what is learned: the loss, and what the outputs of the network mean",
        choices=TASKS,
        trajectory=True,
    )
    metrics: str = option(
        "accuracy",
        "metrics of each example besides the loss, separated by commas",
        any_of=METRICS,
        trajectory=True,
    )
    label_smoothing: float = option(
        0.0,
        "label smoothing of the training loss: the probability that is spread over all classes",
        minimum=0,
        below=1,
        trajectory=True,
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return names_in(self.metrics)
