"""Options of the task: loss, metrics and class weights."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, names_in, option
from engine.tasks.registry import DEFAULT_METRICS, METRICS, REGRESSION_LOSSES, TASKS


@dataclasses.dataclass(frozen=True)
class TaskOptions(OptionGroup):
    """Task: loss and metrics.

    The first line is the heading of these options in `--help`. A `metrics` of "auto" is replaced by
    the default metric of the task, or by "" for a task that is not built in.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    task: str = option(
        "classification", "what is learned of the targets", choices=TASKS, trajectory=True
    )
    metrics: str = option(
        "auto",
        "metrics besides the loss, separated by commas; auto: those of the task, accuracy for "
        "classification",
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
    regression_loss: str = option(
        "mean_squared_error",
        "loss of the error of each number in regression; huber: of delta 1",
        choices=REGRESSION_LOSSES,
        trajectory=True,
    )
    classes: int = option(
        0,
        "number of classes, where the data does not say, as with masks; 0: it does",
        minimum=0,
        trajectory=True,
    )
    class_weights: str = option(
        "",
        "weight of an example in training by its class, a number for each class, separated by "
        "commas; balanced: inversely proportional to the number of its training examples; "
        "empty: 1",
        trajectory=True,
    )
    ignore_label: int = option(
        -1,
        "label that counts neither in the loss nor in metrics; -1: none",
        minimum=-1,
        trajectory=True,
    )

    def __post_init__(self) -> None:
        if self.metrics == "auto":
            object.__setattr__(self, "metrics", DEFAULT_METRICS.get(self.task, ""))
        super().__post_init__()
        if self.class_weights not in ("", "balanced"):
            weights = self.numbers
            if not (weights and all(0 <= weight < 1e30 for weight in weights) and any(weights)):
                raise ValueError(
                    f"--class_weights={self.class_weights}: give 'balanced', or a number of 0 or "
                    "more for each class, separated by commas"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics in `--metrics`, in order."""
        return names_in(self.metrics)

    @property
    def numbers(self) -> tuple[float, ...]:
        """Class weights given as numbers; () if `--class_weights` is empty or "balanced"."""
        try:
            return tuple(float(part) for part in names_in(self.class_weights))
        except ValueError:
            return ()
