"""Reads and writes files of a run directory, and checks whether its run can be resumed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from engine.checkpoint import catalog
from engine.checkpoint.checkpoint_file import sync_directory
from engine.config import flag_texts, flags
from engine.config.option import written
from engine.config.schema import Config, changed
from engine.runtime import lock
from engine.runtime.atomic_files import replace_file

_POLL = 0.2  # seconds between two looks at a run directory
# Options of one process, not of the run; the message of `finished` does not name them.
_PER_COMMAND = ("mode", "run_dir", "resume", "progress", "weights", "load")


def read_options(run_dir: str) -> Config | None:
    """Reads the options of a run from config.flags in `run_dir`; returns None without this file.

    Does not import the files of `--load`.

    Raises:
      ValueError: if config.flags cannot be read or holds invalid options.
    """
    path = os.path.join(run_dir, "config.flags")
    if not os.path.isfile(path):
        return None
    try:
        return flags.parse(flag_texts.of_file(path), load=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot read {path}: {error}; give another --run_dir") from None


def result_file(run_dir: str) -> str:
    """Returns the path of a run's results, result.json, which is written when the run ends."""
    return os.path.join(run_dir, "result.json")


def read_result(run_dir: str) -> dict[str, Any] | None:
    """Reads the results of a run from result.json in `run_dir`; returns None without this file.

    Raises:
      ValueError: if result.json cannot be read or is not valid JSON.
    """
    path = result_file(run_dir)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot read {path}: {error}; run the same command to write it again"
        ) from None


def has_checkpoint(run_dir: str) -> bool:
    """Returns whether a run has a checkpoint file to resume from, whether intact or damaged."""
    return bool(catalog.list_checkpoints(catalog.newest_directory(run_dir)))


def await_checkpoint(run_dir: str, timeout: float) -> None:
    """Waits until a run has a checkpoint, for `--follow` started before or with the training.

    Prints a line if it has to wait.

    Args:
      run_dir: run directory, which need not exist yet.
      timeout: seconds to wait while no process trains the run.

    Raises:
      ValueError: if there is no checkpoint, and no process has trained the run for `timeout`
        seconds.
    """
    idle_since, waiting = time.monotonic(), False
    while not has_checkpoint(run_dir):
        if not waiting:
            print(f"waiting for the first checkpoint of {run_dir}", flush=True)
        waiting, now = True, time.monotonic()
        if lock.in_use(run_dir):
            idle_since = now
        elif now - idle_since > timeout:
            raise ValueError(
                f"--run_dir={run_dir}: there is no checkpoint, and no process has trained the run "
                f"for {timeout:g} s (--follow_timeout)"
            )
        time.sleep(_POLL)


def check_writable(run_dir: str) -> None:
    """Raises ValueError if run_dir is a file or not writable, or could not be created."""
    path = Path(os.path.abspath(run_dir))
    existing = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not os.path.isdir(existing):
        raise ValueError(f"--run_dir={run_dir}: {existing} is a file; give a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"--run_dir={run_dir}: {existing} is not writable")


def open_for_training(config: Config) -> Config | None:
    """Checks that training may start or resume in run_dir; returns the options of a run to resume.

    Writes no files and imports no TensorFlow. Returns None for a new run, and also if options that
    affect the weights have changed and the newest checkpoint is of step 0, because starting over
    then loses no training.

    Raises:
      ValueError: if run_dir is a file or not writable; if `--resume` does not allow its use; if it
        holds checkpoints of version 0.2 or older, or checkpoints without a valid config.flags; or
        if options that affect the weights have changed after step 0.
    """
    run_dir, resume = config.run.run_dir, config.run.resume
    check_writable(run_dir)
    if os.path.isfile(os.path.join(catalog.newest_directory(run_dir), "checkpoint")):
        raise ValueError(
            f"{run_dir} holds a run of Tapeline 0.2 or older: go on with that version, or give "
            "another --run_dir"
        )
    in_use, options_file = has_checkpoint(run_dir), os.path.join(run_dir, "config.flags")
    if resume == "never" and (in_use or os.path.isfile(options_file)):
        raise ValueError(
            f"--resume=never: {run_dir} already holds a run; give another --run_dir, or leave "
            "--resume out to resume it"
        )
    if resume == "must" and not in_use:
        raise ValueError(f"--resume=must: {run_dir} has no checkpoint to resume from")
    before = read_options(run_dir) if in_use else None
    if in_use and before is None:
        raise ValueError(
            f"{options_file} is missing, so what the checkpoints beside it were made with "
            "is not known; give another --run_dir"
        )
    if before is not None and _at_start(run_dir) and changed(before, config, "trajectory"):
        return None
    check_trajectory(config, before)
    return before


def is_trained(run_dir: str) -> bool:
    """Returns whether a run has a checkpoint of a step after 0, which fixes its options."""
    return has_checkpoint(run_dir) and not _at_start(run_dir)


def _at_start(run_dir: str) -> bool:
    """Returns whether the newest checkpoint is of step 0; False if it is missing or unreadable."""
    newest = catalog.newest_checkpoint(run_dir)
    try:
        return newest is not None and catalog.read_metadata(newest)["step"] == 0
    except (OSError, ValueError):
        return False


def check_trajectory(config: Config, before: Config | None) -> None:
    """Raises ValueError, which names the options, if options that affect the weights have changed.

    `config` has the options now, `before` those of the run to resume; None for a new run, which
    passes.
    """
    if before is not None and (differences := _differences(before, config, "trajectory")):
        raise _other_options(config, differences)


def check_length(
    config: Config,
    before: Config | None,
    steps_per_epoch: int,
    step: int,
    *,
    needs_length: str,
) -> None:
    """Raises ValueError if the configured number of steps does not fit the run to resume.

    Args:
      config: options now.
      before: options of the run to resume; None for a new run.
      steps_per_epoch: number of steps of an epoch.
      step: step that the run has reached; the number of steps must not be smaller.
      needs_length: what depends on the number of steps, which then has to be the same as in
        `before`, such as "the cosine schedule"; "": nothing.
    """
    old, new = ((c or config).training.steps(steps_per_epoch) for c in (before, config))
    if needs_length and old != new:
        dependent = f"on which {needs_length} depends"
        raise _other_options(config, [f"{new} steps in all (was {old}), {dependent}"])
    if new < step:
        option, least = "epochs", -(-step // steps_per_epoch)
        if config.training.train_steps:
            option, least = "train_steps", step
        raise ValueError(
            f"--{option}={getattr(config.training, option)}: that is {new:,} steps, and the run in "
            f"{config.run.run_dir} is at step {step:,} already; give --{option}={least} or more, "
            "or another --run_dir"
        )


def check_logging_options(config: Config, before: Config | None) -> None:
    """Raises ValueError if options that affect files written during training have changed.

    Call it only for a run without steps left, in which these options can have no effect. `config`
    has the options now, `before` those of the run so far; None for a new run, which passes.
    """
    if before is not None and (differences := _differences(before, config, "record")):
        raise ValueError(
            f"the run in {config.run.run_dir} has no step left to record with "
            f"{', '.join(differences)}; leave that out, or give another --run_dir"
        )


def finished(config: Config) -> str:
    """Returns a message if the run is complete and `config` leaves nothing to do, else "".

    A run is complete if it has a checkpoint, config.flags and a valid result.json. Nothing is left
    to do if no option has changed that affects the weights, the number of steps or the run's files.
    With `--resume=never`, and for a run that `--max_hours` stopped, the result is "". If there is a
    message, neither this function nor its caller writes a file, so that a repeated command leaves
    all files unchanged.

    Raises:
      ValueError: if config.flags cannot be read or holds invalid options.
    """
    run_dir = config.run.run_dir
    if config.run.resume == "never" or not has_checkpoint(run_dir):
        return ""
    try:
        result = read_result(run_dir)
    except ValueError:  # the run writes it again
        return ""
    before = read_options(run_dir)
    if result is None or before is None:
        return ""
    if changed(before, config, "trajectory", "length", "record", "end"):
        return ""
    if result.get("stopped_by") == "max_hours":
        return ""
    stopped_early = bool(result.get("stopped_early"))
    reason = result.get("stop_reason")
    notes = [f"stopped early: {reason}" if reason else "stopped early"] if stopped_early else []
    if idle := [
        f"--{name}" for name, *_ in changed(before, config, "") if name not in _PER_COMMAND
    ]:
        notes.append(f"nothing is left to do with {', '.join(idle)}")
    if not stopped_early:
        length = "train_steps" if config.training.train_steps else "epochs"
        notes.append(f"raise --{length} to continue")
    return f"run    {run_dir}: already complete at step {result['step']:,}; {'; '.join(notes)}"


def _differences(before: Config, now: Config, effect: str) -> list[str]:
    return [
        f"--{name}={written(new)} (was {written(old)})"
        for name, old, new in changed(before, now, effect)
    ]


def _other_options(config: Config, differences: list[str]) -> ValueError:
    return ValueError(
        f"{config.run.run_dir} holds a run with other options: {', '.join(differences)}; give "
        "another --run_dir, or the options it was started with"
    )


def write_options(config: Config) -> None:
    """Removes result.json, then writes the options to config.flags.

    In this order, a killed process never leaves a result next to options that did not produce it.

    Raises:
      OSError: if a file cannot be removed or written.
    """
    run_dir = config.run.run_dir
    with contextlib.suppress(FileNotFoundError):
        os.unlink(result_file(run_dir))
        sync_directory(run_dir)
    replace_file(os.path.join(run_dir, "config.flags"), flags.flagfile(config))


def clear(run_dir: str) -> None:
    """Removes the checkpoints, timings and records of a run at step 0, so that a new run can start.

    The timings are in clock.json, the records of skipped steps in left_out and left_out.jsonl.

    Raises:
      OSError: if a file cannot be removed.
    """
    shutil.rmtree(os.path.join(run_dir, "left_out"), ignore_errors=True)
    for path in (
        os.path.join(run_dir, "left_out.jsonl"),
        os.path.join(run_dir, "clock.json"),
        *catalog.list_checkpoints(catalog.kept_directory(run_dir)),
        *catalog.list_checkpoints(catalog.best_directory(run_dir)),
        *catalog.list_checkpoints(catalog.newest_directory(run_dir)),
    ):
        Path(path).unlink(missing_ok=True)
