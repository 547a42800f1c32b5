"""Rejects combinations of options that conflict, although each value is in range.

An option that merely has no effect is not a conflict, because the command line may override part
of a flagfile. Only commands that train are checked; a trained run can be evaluated whatever its
options are. This module imports no TensorFlow, so that invalid input fails at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.option import written
from engine.config.schema import Config

_FLOAT16_SCALE = 2**15  # initial loss scale, as in engine.optim.precision
_MOST_STEPS = 1 << 53  # float64, the dtype of schedules, represents all integers up to it


def refuse(config: Config) -> None:
    """Rejects options that conflict.

    Raises:
      ValueError: for the first conflict; one line that names both options and the remedy.
    """
    for problem in _of_options(config):
        raise ValueError(problem)


def check_length_options(config: Config, total_steps: int) -> None:
    """Rejects options that do not fit the length of a run.

    Rejects steps beyond the end in `--leave_out` or `--profile`, a `--leave_out` that skips every
    step, and a run of 2^53 steps or more.

    Args:
      config: all options.
      total_steps: number of steps of the whole run.

    Raises:
      ValueError: for the first conflict; one line that names the option and the remedy.
    """
    for problem in _of_length(config, total_steps):
        raise ValueError(problem)


def _of_options(config: Config) -> Iterator[str]:
    rule, rate, precision = config.optimizer, config.schedule, config.precision
    training, shards, bad_steps = config.training, config.devices.shards, config.bad_steps
    if rate.schedule == "one_cycle" and rate.warmup_steps:
        yield (
            f"--schedule=one_cycle --warmup_steps={rate.warmup_steps}: one_cycle rises by itself, "
            "from a 25th of the learning rate, over the first 30% of the steps: leave "
            "--warmup_steps out, or give --schedule=cosine"
        )
    if rate.schedule == "cosine" and rate.final_fraction > 1:
        yield (
            f"--schedule=cosine --final_fraction={written(rate.final_fraction)}: would end above "
            f"--learning_rate={written(rate.learning_rate)}, which is the highest: give a fraction "
            "from 0 to 1"
        )
    if rule.optimizer == "lion" and not rule.beta_1:
        yield (
            "--optimizer=lion --beta_1=0: the mean gradient has no share in the update then: give "
            "a --beta_1 above 0, such as 0.9"
        )
    initial = precision.loss_scale or (
        _FLOAT16_SCALE if precision.precision == "mixed_float16" else 1
    )
    if initial != 1 and precision.loss_scale_floor > max(initial, 1):
        yield (
            f"--loss_scale_floor={written(precision.loss_scale_floor)}: is above --loss_scale="
            f"{initial:g}, where the scale starts with --precision={precision.precision}: give a "
            "smaller --loss_scale_floor or a greater --loss_scale"
        )
    in_a_row = bad_steps.bad_steps_in_a_row
    none_in_a_row = not (in_a_row if in_a_row >= 0 else initial != 1)
    none_in_all = not (bad_steps.bad_steps if bad_steps.bad_steps >= 0 else initial != 1)
    if bad_steps.bad_steps > 0 and none_in_a_row:
        yield (
            f"--bad_steps={bad_steps.bad_steps}: none passes with --bad_steps_in_a_row=0, which is "
            "the default without a dynamic loss scale: give 1 or more of those too"
        )
    if in_a_row > 0 and none_in_all:
        yield (
            f"--bad_steps_in_a_row={in_a_row}: none passes with --bad_steps=0, which is the "
            "default without a dynamic loss scale: give 1 or more of those too"
        )
    if training.accumulate * shards > training.global_batch_size:
        yield (
            f"--accumulate={training.accumulate} --shards={shards}: together cut "
            f"--global_batch_size={training.global_batch_size} into less than one example each: "
            "give less of them"
        )


def _of_length(config: Config, total_steps: int) -> Iterator[str]:
    training, logging = config.training, config.logging
    length = f"the run has only {total_steps} steps, from 0 to {total_steps - 1}"
    if total_steps >= _MOST_STEPS:
        asked = (
            f"--train_steps={training.train_steps}"
            if training.train_steps
            else f"--epochs={training.epochs}"
        )
        yield (
            f"{asked}: is a run of {total_steps} steps, and schedules count fewer than 2^53 "
            "exactly: give fewer"
        )
    asked_for = {int(step) for step in config.bad_steps.leave_out.split(",") if step}
    flag = f"--leave_out={config.bad_steps.leave_out}"
    if max(asked_for, default=0) >= total_steps:
        yield f"{flag}: {length}; leave {max(asked_for)} out of the list"
    if len(asked_for) == total_steps:
        yield f"{flag}: leaves out all {total_steps} steps of the run; give fewer, or more --epochs"
    if logging.profile and logging.profiled[0] >= total_steps:
        yield f"--profile={logging.profile}: {length}; give a START below {total_steps}"
