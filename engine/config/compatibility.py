"""Checks for options that conflict with each other, although each value is in range.

An option that merely has no effect is not a conflict, because the command line may override part
of a flagfile. Only modes that train are checked; any trained run can be evaluated.
"""

from __future__ import annotations

from engine.config.option import written
from engine.config.schema import Config

_FLOAT16_SCALE = 2**15  # initial loss scale, as in engine.optim.precision
_MOST_STEPS = 1 << 53  # float64, the dtype of schedules, represents all integers up to it


def refuse(config: Config) -> None:
    """Raises ValueError, with one line that names options and remedy, if options conflict."""
    schedule, precision = config.schedule, config.precision
    training, shards, bad_steps = config.training, config.devices.shards, config.bad_steps
    if schedule.schedule == "one_cycle" and schedule.warmup_steps:
        raise ValueError(
            f"--schedule=one_cycle --warmup_steps={schedule.warmup_steps}: one_cycle rises by "
            "itself, from a 25th of the learning rate, over the first 30% of the steps: leave "
            "--warmup_steps out, or give --schedule=cosine"
        )
    if schedule.schedule == "plateau" and schedule.decay_rate >= 1:
        raise ValueError(
            f"--schedule=plateau --decay_rate={written(schedule.decay_rate)}: would not reduce the "
            "learning rate: give less than 1"
        )
    if schedule.schedule in ("cosine", "linear", "plateau") and schedule.final_fraction > 1:
        raise ValueError(
            f"--schedule={schedule.schedule} --final_fraction={written(schedule.final_fraction)}: "
            f"would be above --learning_rate={written(schedule.learning_rate)}, the highest: give "
            "a fraction from 0 to 1"
        )
    augments = [each.split(":")[0].strip() for each in config.data.augment.split(",")]
    mixes = [name for name in augments if name in ("mixup", "cutmix")]
    if mixes and config.task.ignore_label >= 0:
        raise ValueError(
            f"--augment={config.data.augment} --ignore_label={config.task.ignore_label}: "
            f"{mixes[0]} mixes each example with the next, also with one whose label is ignored: "
            "give one of the two"
        )
    if config.optimizer.optimizer == "lion" and not config.optimizer.beta_1:
        raise ValueError(
            "--optimizer=lion --beta_1=0: the mean gradient has no share in the update then: give "
            "a --beta_1 above 0, such as 0.9"
        )
    initial = precision.loss_scale or (
        _FLOAT16_SCALE if precision.precision == "mixed_float16" else 1
    )
    if initial != 1 and precision.loss_scale_floor > max(initial, 1):
        raise ValueError(
            f"--loss_scale_floor={written(precision.loss_scale_floor)}: is above --loss_scale="
            f"{initial:g}, where the scale starts with --precision={precision.precision}: give a "
            "smaller --loss_scale_floor or a greater --loss_scale"
        )
    names = ("bad_steps", "bad_steps_in_a_row")
    for name, other in (names, reversed(names)):
        limit, other_limit = getattr(bad_steps, name), getattr(bad_steps, other)
        if limit > 0 and not (other_limit if other_limit >= 0 else initial != 1):
            raise ValueError(
                f"--{name}={limit}: none passes with --{other}=0, which is the default without a "
                "dynamic loss scale: give 1 or more of those too"
            )
    if training.accumulate * shards > training.global_batch_size:
        raise ValueError(
            f"--accumulate={training.accumulate} --shards={shards}: together cut "
            f"--global_batch_size={training.global_batch_size} into less than one example each: "
            "give less of them"
        )


def check_length_options(config: Config, total_steps: int) -> None:
    """Raises ValueError if a run of `total_steps` steps is too long, or too short for the options.

    It is too long from 2^53 steps on. It is too short if a step of `--leave_out` or the start of
    `--profile` is not below `total_steps`, or if `--leave_out` lists every step.
    """
    training, logging = config.training, config.logging
    length = f"the run has only {total_steps} steps, from 0 to {total_steps - 1}"
    if total_steps >= _MOST_STEPS:
        option = "train_steps" if training.train_steps else "epochs"
        raise ValueError(
            f"--{option}={getattr(training, option)}: is a run of {total_steps} steps, and "
            "schedules count fewer than 2^53 exactly: give fewer"
        )
    left_out = {int(step) for step in config.bad_steps.leave_out.split(",") if step}
    flag = f"--leave_out={config.bad_steps.leave_out}"
    if max(left_out, default=0) >= total_steps:
        raise ValueError(f"{flag}: {length}; leave {max(left_out)} out of the list")
    if len(left_out) == total_steps:
        raise ValueError(
            f"{flag}: leaves out all {total_steps} steps of the run; give fewer, or more --epochs"
        )
    if logging.profile and logging.profiled[0] >= total_steps:
        raise ValueError(f"--profile={logging.profile}: {length}; give a START below {total_steps}")
