"""run_dir: may it be used, and is what it holds the run that was asked for?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from typing import Any

from engine import flags
from engine.config import Config, changed_trajectory
from engine.keeping import catalogue
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

    Returns:
      The options of the run to go on with; None for a new run.

    Raises:
      ValueError: when run_dir cannot be used so.
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
    return before


def refuse_another_trajectory(config: Config, before: Config | None, steps_per_epoch: int) -> None:
    """Lets a run be continued only as the run it is; what changes nothing computed may change.

    Raises:
      ValueError: naming each option with both values.
    """
    if before is None:
        return
    changed = [
        f"--{name}={written(now)} (was {written(old)})"
        for name, old, now in changed_trajectory(before, config)
    ]
    rule = config.optimization
    if rule.depends_on_length:
        lengths = [
            c.training.train_steps or c.training.epochs * steps_per_epoch for c in (before, config)
        ]
        if lengths[0] != lengths[1]:
            changed.append(
                f"{lengths[1]} steps in all (was {lengths[0]}), on which the {rule.schedule} "
                "schedule depends"
            )
    if changed:
        raise ValueError(
            f"{config.run.run_dir} holds a run with other options: {', '.join(changed)}; give "
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
    changed = [
        f"--{name}={written(now)} (is {written(old)})"
        for name, old, now in changed_trajectory(before, config)
        if name in network
    ]
    if changed:
        raise ValueError(f"{config.run.run_dir} holds another network: {', '.join(changed)}")


def write_options(config: Config) -> None:
    """Writes config.flags, and takes away the result of an earlier end."""
    replace_file(options_file(config.run.run_dir), flags.flagfile(config))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(config.run.run_dir, "result.json"))


def _ancestors(path: str) -> list[str]:
    """The path itself, then its parents up to the root."""
    path = os.path.abspath(path)
    found = [path]
    while os.path.dirname(path) != path:
        path = os.path.dirname(path)
        found.append(path)
    return found
