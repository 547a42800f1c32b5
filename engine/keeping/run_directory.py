"""run_dir: may it be used, and is what it holds the run that was asked for?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from typing import Any

from engine import flags
from engine.config import Config, changed
from engine.keeping import catalogue
from engine.keeping.archive import sync_directory
from engine.keeping.files import replace_file
from engine.options import written

_OPTIONS = "config.flags"


def options_file(run_dir: str) -> str:
    """Where a run's options are kept."""
    return os.path.join(run_dir, _OPTIONS)


def options_of(run_dir: str) -> Config | None:
    """The options of the run in a directory; None where there is none.

    Raises:
      ValueError: when the file cannot be read as options.
    """
    path = options_file(run_dir)
    if not os.path.isfile(path):
        return None
    try:
        return flags.parse(flags.of_file(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot read {path}: {error}; give another --run_dir") from None


def result_file(run_dir: str) -> str:
    """The path of what came of the run, written when it has ended."""
    return os.path.join(run_dir, "result.json")


def result_of(run_dir: str) -> dict[str, Any] | None:
    """What came of a run; None where it has not ended.

    Raises:
      ValueError: when it cannot be read.
    """
    path = result_file(run_dir)
    try:
        with open(path, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot read {path}: {error}; run the same command to write it again"
        ) from None
    return found


def has_checkpoint(run_dir: str) -> bool:
    """Whether a run has something to go on from."""
    return bool(catalogue.list_checkpoints(catalogue.newest_directory(run_dir)))


def open_for_training(config: Config) -> Config | None:
    """Checks run_dir against `--resume`, before anything is loaded.

    A run that has saved no step yet has lost nothing when it starts over with other options.

    Returns:
      The options of the run to resume; None for a new run.

    Raises:
      ValueError: when run_dir cannot be used so, or holds a run with other options.
    """
    run_dir, resume = config.run.run_dir, config.run.resume
    for ancestor in _ancestors(run_dir):
        if os.path.lexists(ancestor) and not os.path.isdir(ancestor):
            raise ValueError(f"--run_dir={run_dir}: {ancestor} is a file; give a directory")
        if os.path.isdir(ancestor):
            if not os.access(ancestor, os.W_OK | os.X_OK):
                raise ValueError(f"--run_dir={run_dir}: {ancestor} is not writable")
            break
    if os.path.isfile(os.path.join(catalogue.newest_directory(run_dir), "checkpoint")):
        raise ValueError(
            f"{run_dir} holds a run of Tapeline 0.2 or older: go on with that version, or give "
            "another --run_dir"
        )
    in_use = has_checkpoint(run_dir)
    if resume == "never" and (in_use or os.path.isfile(options_file(run_dir))):
        raise ValueError(
            f"--resume=never: {run_dir} already holds a run; give another --run_dir, or leave "
            "--resume out to go on with it"
        )
    if resume == "must" and not in_use:
        raise ValueError(f"--resume=must: {run_dir} holds no checkpoint to go on from")
    before = options_of(run_dir) if in_use else None
    if in_use and before is None:
        raise ValueError(
            f"{options_file(run_dir)} is missing, so what the checkpoints beside it were made with "
            "is not known; give another --run_dir"
        )
    if before is not None and _at_start(run_dir) and changed(before, config, "trajectory"):
        return None
    refuse_another_trajectory(config, before)
    return before


def _at_start(run_dir: str) -> bool:
    """Whether no step has been saved yet: the newest checkpoint is that of step 0."""
    newest = catalogue.newest_of(run_dir)
    try:
        return newest is not None and catalogue.read_facts(newest)["step"] == 0
    except (OSError, ValueError):
        return False


def refuse_another_trajectory(config: Config, before: Config | None) -> None:
    """Refuses options that would change what a run computes.

    Args:
      config: all options.
      before: those of the run that is to be resumed; None for a new one.

    Raises:
      ValueError: naming each option with both values.
    """
    if before is not None:
        _refuse(config, _differences(changed(before, config, "trajectory")))


def refuse_other_length(
    config: Config, before: Config | None, steps_per_epoch: int, step: int
) -> None:
    """Refuses a length that a run cannot have any more.

    Args:
      config: all options.
      before: those of the run that is resumed; None for a new one.
      steps_per_epoch: of the run.
      step: that the run is at.

    Raises:
      ValueError: when the schedule depends on the length and it is another one, or when the run
        is past it.
    """
    rule, run_dir = config.optimization, config.run.run_dir
    old, new = ((c or config).training.steps(steps_per_epoch) for c in (before, config))
    if rule.depends_on_length and old != new:
        _refuse(
            config,
            [f"{new} steps in all (was {old}), on which the {rule.schedule} schedule depends"],
        )
    if new < step:
        asked, least = f"--epochs={config.training.epochs}", -(-step // steps_per_epoch)
        enough = f"--epochs={least}"
        if config.training.train_steps:
            asked, enough = f"--train_steps={config.training.train_steps}", f"--train_steps={step}"
        raise ValueError(
            f"{asked}: that is {new:,} steps, and the run in {run_dir} is at step {step:,} "
            f"already; give {enough} or more, or another --run_dir"
        )


def refuse_other_record(config: Config, before: Config | None) -> None:
    """Refuses to record the steps of a run otherwise when all of them have been taken.

    Args:
      config: all options.
      before: those of the run that is resumed; None for a new one.

    Raises:
      ValueError: naming each option with both values.
    """
    if before is None:
        return
    if differences := _differences(changed(before, config, "record")):
        raise ValueError(
            f"the run in {config.run.run_dir} has no step left to record with "
            f"{', '.join(differences)}; leave that out, or give another --run_dir"
        )


def finished(config: Config) -> str:
    """What to say of a run that has ended, where nothing that is asked for would change it.

    Nothing is written, here or by the caller: the same command again leaves every byte.

    Args:
      config: all options.

    Returns:
      A line for a person; empty where there is something to do.

    Raises:
      ValueError: when the run's options cannot be read.
    """
    run_dir = config.run.run_dir
    if config.run.resume == "never" or not has_checkpoint(run_dir):
        return ""
    try:
        result = result_of(run_dir)
    except ValueError:  # it is written again
        return ""
    before = options_of(run_dir)
    if result is None or before is None:
        return ""
    if changed(before, config, "trajectory", "length", "record", "end"):
        return ""
    words = ["stopped early"] * bool(result.get("stopped_early"))
    if idle := [name for name, *_ in changed(before, config, "") if name not in _OF_A_COMMAND]:
        words.append(f"nothing is left to do with {', '.join(f'--{name}' for name in idle)}")
    if not result.get("stopped_early"):
        length = "train_steps" if config.training.train_steps else "epochs"
        words.append(f"raise --{length} to go on")
    about = "; ".join(words)
    return f"run    {run_dir}: done already at step {result['step']:,}; {about}"


# Options of a single command rather than of the run.
_OF_A_COMMAND = ("mode", "run_dir", "resume", "progress", "weights")


def _differences(found: list[tuple[str, Any, Any]]) -> list[str]:
    return [f"--{name}={written(now)} (was {written(old)})" for name, old, now in found]


def _refuse(config: Config, differences: list[str]) -> None:
    if differences:
        raise ValueError(
            f"{config.run.run_dir} holds a run with other options: {', '.join(differences)}; give "
            "another --run_dir, or the options it was started with"
        )


def refuse_another_network(config: Config) -> None:
    """Lets a run's weights be used only in the network they are of.

    Raises:
      ValueError: naming each option with both values.
    """
    before = options_of(config.run.run_dir)
    assert before is not None, "a run has options"
    network = {field.name for field in dataclasses.fields(config.network)}
    others = [
        f"--{name}={written(now)} (is {written(old)})"
        for name, old, now in changed(before, config, "trajectory")
        if name in network
    ]
    if others:
        raise ValueError(f"{config.run.run_dir} holds another network: {', '.join(others)}")


def write_options(config: Config) -> None:
    """Writes config.flags; the result of an earlier end is removed before.

    In this order, so that a kill never leaves a result beside options that it is not of.
    """
    run_dir = config.run.run_dir
    with contextlib.suppress(FileNotFoundError):
        os.unlink(result_file(run_dir))
        sync_directory(run_dir)
    replace_file(options_file(run_dir), flags.flagfile(config))


def clear(run_dir: str) -> None:
    """Removes what a run left that has not saved a step, so that another one may begin here."""
    shutil.rmtree(os.path.join(run_dir, "left_out"), ignore_errors=True)
    for path in (
        os.path.join(run_dir, "left_out.jsonl"),
        os.path.join(run_dir, "clock.json"),
        *catalogue.list_checkpoints(catalogue.best_directory(run_dir)),
        *catalogue.list_checkpoints(catalogue.newest_directory(run_dir)),
    ):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _ancestors(path: str) -> list[str]:
    """The path itself, then its parents up to the root."""
    path = os.path.abspath(path)
    found = [path]
    while os.path.dirname(path) != path:
        path = os.path.dirname(path)
        found.append(path)
    return found
