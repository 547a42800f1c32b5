"""Options of the optimizer, the learning-rate schedule and the precision."""

from __future__ import annotations

import dataclasses
import functools

from engine.config.option import OptionGroup, option
from engine.optim.patterns import decay_factors, freezing_updates, multipliers
from engine.optim.points import POINTS, points
from engine.optim.registry import OPTIMIZERS, SCHEDULES

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

_option = functools.partial(option, trajectory=True)


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(OptionGroup):
    """Optimizer and regularization.

    Options of the optimizer; the first line is the heading in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    optimizer: str = _option("adam", "optimizer", choices=OPTIMIZERS)
    momentum: float = _option(
        0.9, "momentum of momentum, nesterov and muon (0.95 in muon's paper)", minimum=0, below=1
    )
    momentum_of: str = _option(
        "updates",
        "what momentum and nesterov sum. updates: learning_rate * gradient, as Keras and Caffe; "
        "gradients: a new learning rate multiplies the earlier gradients, too, as PyTorch",
        choices=("updates", "gradients"),
    )
    rho: float = _option(0.9, "decay of the mean square of rmsprop", minimum=0, below=1)
    beta_1: float = _option(
        0.9,
        "decay of the mean gradient of adam, adamw, lamb and, for vectors, muon; in lion the "
        "fraction of the mean in the update",
        minimum=0,
        below=1,
    )
    beta_2: float = _option(
        0.0,
        "decay of the mean square of adam, adamw, lamb and, for vectors, muon; in lion of the "
        "mean gradient; 0: 0.999, lion 0.99",
        minimum=0,
        below=1,
    )
    epsilon: float = _option(
        1e-7,
        "keeps a denominator from 0: rmsprop adds it to the mean square under the root; adam and "
        "adamw (and muon, on vectors) to the root of the mean square before bias correction, the "
        "paper's epsilon hat; lamb to the root after bias correction; muon to the norm of a "
        "matrix's gradient",
        above=0,
    )
    weight_decay: float = _option(
        -1.0,
        "weight decay, decoupled from the gradient (see --weight_decay_kind), in lamb part of the "
        "update; not for biases and norms; -1: 0.01 for adamw, lamb, lion and muon, else 0",
        minimum=-1,
    )
    weight_decay_kind: str = _option(
        "decoupled",
        "decoupled: an update takes learning_rate * weight_decay of each weight (AdamW); coupled: "
        "weight_decay times the weight is added to the clipped gradient and so enters momentum and "
        "moments (L2 regularization, the weight_decay of PyTorch's SGD and Adam); not for "
        "optimizers with a weight decay of their own",
        choices=("decoupled", "coupled"),
    )
    weight_decay_variables: str = _option(
        "matrices",
        "variables that weight decay applies to. matrices: kernels and tables, not biases and "
        "norms; vectors: the others; or patterns of names, separated by commas, the first that "
        "matches counting, each with a factor of the decay after a colon if it is not 1; .*: all",
    )
    learning_rate_multipliers: str = _option(
        "",
        "multipliers of the learning rate by pattern of the variable's name, "
        "PATTERN:NUMBER,...; the first pattern that matches counts; matrices and vectors are "
        "patterns, too; empty: 1",
    )
    freeze_after: str = _option(
        "",
        "variables that stay as they are after a number of updates, PATTERN:UPDATES,..., with "
        "patterns as in --learning_rate_multipliers; empty: none",
    )
    lookahead: int = _option(
        0,
        "updates after which slow weights follow the weights, which then return to them "
        "(Lookahead); 0: none",
        minimum=0,
    )
    lookahead_decay: float = _option(
        0.5, "fraction of the slow weights that --lookahead keeps", minimum=0, below=1
    )
    lookahead_power: float = _option(
        0.0,
        "lets the fraction of --lookahead_decay rise from 0 as this power of the share of the "
        "run that is over; 0: constant",
        minimum=0,
    )
    clip_norm: float = _option(
        0.0,
        "maximum global norm of the gradient, which is scaled down to it, after --clip_value; 0: "
        "no clipping",
        minimum=0,
    )
    clip_value: float = _option(
        0.0,
        "maximum absolute value of a gradient element, before --clip_norm; 0: no clipping",
        minimum=0,
    )
    ema: float = _option(
        0.0,
        "decay of the exponential moving average (EMA) of the weights, such as 0.999. It "
        "starts from the initial weights; update t, from 0, uses min(ema, (1 + t) / (10 + "
        "t)); 0: no EMA",
        minimum=0,
        below=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if -1 < self.weight_decay < 0:
            raise ValueError(f"--weight_decay={self.weight_decay}: give 0 or more, or -1 for auto")
        multipliers(self.learning_rate_multipliers)
        decay_factors(self.weight_decay_variables)
        freezing_updates(self.freeze_after)


@dataclasses.dataclass(frozen=True)
class ScheduleOptions(OptionGroup):
    """Learning-rate schedule.

    Options of the learning-rate schedule; the first line is the heading in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    learning_rate: float = _option(0.001, "highest learning rate of the schedule", above=0)
    schedule: str = _option("constant", "learning-rate schedule", choices=SCHEDULES)
    warmup_steps: int = _option(
        0,
        "steps of linear warmup before the schedule; not with one_cycle, which has its own",
        minimum=0,
    )
    decay_rate: float = _option(
        0.1,
        "factor of the step and exponential schedules per decay_steps, and of each reduction of "
        "plateau",
        above=0,
    )
    decay_steps: int = _option(
        0, "steps per decay; 0: a third of the steps after the warmup", minimum=0
    )
    final_fraction: float = _option(
        0.0,
        "last learning rate of cosine and linear, and smallest one of plateau, as a fraction of "
        "learning_rate, at most 1",
        minimum=0,
    )
    schedule_points: str = _option(
        POINTS,
        "points of piecewise_linear and piecewise_constant, SHARE:FACTOR,...: at this share of the "
        "steps after the warmup, the learning rate is the factor of learning_rate; between points, "
        "it lies on a line, or stays; it starts at 1 without a point of share 0",
    )
    plateau_patience: int = _option(
        10,
        "evaluations in a row that may pass without --monitor improving by more than --min_delta; "
        "at one more, the plateau schedule reduces the learning rate",
        minimum=0,
    )
    plateau_cooldown: int = _option(
        0, "evaluations after a reduction that the plateau schedule does not count", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        points(self.schedule_points)


@dataclasses.dataclass(frozen=True)
class PrecisionOptions(OptionGroup):
    """Precision and loss scale; weights are always float32.

    Options of the precision policy and of loss scaling; the first line is the heading in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    precision: str = _option(
        "float32",
        "float32; mixed_bfloat16 or mixed_float16: layers compute in 16 bits, weights, loss, "
        "norms and sums stay float32; auto: mixed_bfloat16 where the processor or GPU computes in "
        "it and it is faster, else float32, and a resume keeps what was chosen",
        choices=(*PRECISIONS, "auto"),
    )
    loss_scale: float = _option(
        0.0,
        "initial loss scale, a power of 2; 0: 32768 for mixed_float16, else 1; 1 stays 1",
        minimum=0,
        power_of_2=True,
    )
    loss_scale_growth_steps: int = _option(
        2000, "finite steps in a row after which the loss scale grows", minimum=1
    )
    loss_scale_factor: float = _option(
        2.0,
        "factor by which the loss scale grows, and shrinks at an overflow; a power of 2",
        above=1,
        power_of_2=True,
    )
    loss_scale_floor: float = _option(
        1.0,
        "minimum of the loss scale, a power of 2; at most the initial scale, and equal to it "
        "if that is below 1",
        above=0,
        power_of_2=True,
    )
