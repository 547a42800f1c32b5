"""Options of the training loop and of early stopping, and sizes of arrays of the state."""

from __future__ import annotations

import dataclasses
import re
import sys

from engine.config.option import OptionGroup, option

MAX_SKIPPED_STEPS = 128  # maximum number of skipped steps that the state records
SPIKE_WINDOW = 64  # number of losses in the spike-detection window
_DECIMAL = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,2})?"
LARGEST_NORMS = 16  # number of largest gradient norms of a run that are kept to detect spikes
MAX_KEEP_BEST = 64  # maximum number of best evaluations that the state records


@dataclasses.dataclass(frozen=True)
class LoopOptions(OptionGroup):
    """Compiled loop.

    The first line is the heading of these options in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    steps_per_loop: str = option(
        "auto", "steps per call of the graph; auto: as many as take half a second"
    )
    jit: str = option(
        "auto",
        "what XLA compiles. off: at most passes of some layers; step: each step; loop: the whole "
        "loop, on one device without shards, which is faster for networks without convolutions on "
        "a CPU; auto: on one CPU the loop of such networks, if XLA compiles all their operations "
        "and oneDNN's bfloat16 is not faster, on one GPU each step of networks of Tapeline's and "
        "Keras's layers, else off",
        choices=("auto", "off", "step", "loop"),
        trajectory=True,
    )
    compilation_cache: bool = option(
        True,
        "on a CPU, keep what XLA compiled beside the decoded data, so that a resume or the same "
        "run on the same machine does not compile it again; the results are the same",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|[0-9]{1,9}", self.steps_per_loop):
            raise ValueError(
                f"--steps_per_loop={self.steps_per_loop}: give auto or a number of steps"
            )

    @property
    def fixed_steps_per_loop(self) -> int:
        """Number of steps in one call of the graph; 0: as many as take half a second."""
        return 0 if self.steps_per_loop == "auto" else int(self.steps_per_loop)


def _registered_views() -> tuple[str, ...]:
    """Returns the names of the views that users have registered.

    The result is () if `pipelines.augmentation.views` is not imported: nothing is registered then.
    """
    module = sys.modules.get("pipelines.augmentation.views")
    return module.registered_views() if module else ()


@dataclasses.dataclass(frozen=True)
class EvaluationOptions(OptionGroup):
    """Evaluation during training.

    The first line is the heading of these options in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    evaluate_every: str = option(
        "epoch",
        "steps between evaluations of the validation sets, each with a checkpoint; --patience "
        "counts them; epoch: at the end of each epoch",
        trajectory=True,
    )
    evaluation_examples: int = option(
        0,
        "examples of each larger validation set that evaluations use, always the same ones, spread "
        "over the set; 0: all",
        minimum=0,
        trajectory=True,
    )
    evaluation_views: str = option(
        "",
        "views over which evaluation, predict and export average the outputs of the model: flip, "
        "images and mirror images; shift:N, images and those shifted by N pixels along both axes; "
        "flip,shift:1 for both, which takes 6 passes; empty: the inputs alone",
        registered=_registered_views,
        trajectory=True,
    )
    evaluate_at_start: bool = option(
        False,
        "also evaluate the initial weights, as step 0 of the curves; they may be the best",
        trajectory=True,
    )
    evaluate_ema: bool = option(
        True,
        "with --ema: evaluate the EMA of the weights, and choose the best weights by it",
        trajectory=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"epoch|[1-9][0-9]{0,14}", self.evaluate_every):
            raise ValueError(
                f"--evaluate_every={self.evaluate_every}: give epoch or a number of steps"
            )

    def interval(self, steps_per_epoch: int) -> int:
        """Returns the number of steps between two evaluations."""
        return steps_per_epoch if self.evaluate_every == "epoch" else int(self.evaluate_every)


@dataclasses.dataclass(frozen=True)
class StoppingOptions(OptionGroup):
    """Early stopping and the best weights.

    The first line is the heading of these options in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    monitor: str = option(
        "auto",
        "metric that chooses the best weights: validation_loss, train_loss, or another metric "
        "after the name of a validation set or train_, such as validation_accuracy; auto: the "
        "first of --metrics on the first validation set, or train_loss without one. Any "
        "improvement counts",
        trajectory=True,
    )
    min_delta: float = option(
        0.0,
        "smallest improvement that counts for --patience; the best weights do not depend on it",
        minimum=0,
        trajectory=True,
    )
    patience: int = option(
        -1,
        "evaluations without improvement before stopping; -1: never",
        minimum=-1,
        trajectory=True,
    )
    min_epochs: int = option(
        0,
        "epochs of training before --patience, --stop_at or --baseline may stop it",
        minimum=0,
        trajectory=True,
    )
    stop_at: str = option(
        "",
        "value of --monitor, such as 0.99: training stops at the evaluation that reaches it",
        trajectory=True,
    )
    baseline: str = option(
        "",
        "VALUE:STEP, such as 0.5:2000: training stops at the first evaluation from that step on "
        "if none so far has reached that value of --monitor",
        trajectory=True,
    )
    max_hours: float = option(
        0.0,
        "hours after the start of a command when it ends training at the next call of the graph, "
        "as a shorter --train_steps would; a later command continues; 0: no limit",
        minimum=0,
    )
    restore_best: bool = option(
        False,
        "test the best weights by --monitor instead of the last ones. "
        "--min_delta does not matter, as it does for restore_best_weights of Keras",
        affects="end",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|[A-Za-z_]\w*_\w+", self.monitor):
            raise ValueError(
                f"--monitor={self.monitor}: give auto, or a metric after validation_ or train_, "
                "such as validation_accuracy"
            )
        if not re.fullmatch(_DECIMAL, self.stop_at or "0"):
            raise ValueError(f"--stop_at={self.stop_at}: give a number, such as 0.99")
        if not re.fullmatch(rf"{_DECIMAL}:[0-9]{{1,15}}", self.baseline or "0:0"):
            raise ValueError(f"--baseline={self.baseline}: give VALUE:STEP, such as 0.5:2000")

    @property
    def target(self) -> float | None:
        """Value of the monitored metric at which training stops; None without `--stop_at`."""
        return float(self.stop_at) if self.stop_at else None

    @property
    def required(self) -> tuple[float, int] | None:
        """(value, step) of `--baseline`; None without this option.

        The monitored metric must have reached the value at each evaluation from the step on.
        """
        value, _, step = self.baseline.partition(":")
        return (float(value), int(step)) if self.baseline else None
