"""The checkpoints of a run directory, found from their files alone.

    run_dir/checkpoints/ckpt-12.npz     the newest checkpoints
    run_dir/best/ckpt-9.npz             the best checkpoint; the newest one names its step

Both directories share one sequence of numbers. A damaged checkpoint keeps its file, under a name
that no run resumes from.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from typing import Any, NamedTuple

from engine.checkpoint import checkpoint_file
from engine.checkpoint.checkpoint_file import CheckpointContents, DamagedError, MissingError
from engine.checkpoint.migration import migrated

DAMAGED = ".damaged"


def newest_directory(run_dir: str) -> str:
    """Returns the directory of a run's newest checkpoints."""
    return os.path.join(run_dir, "checkpoints")


def best_directory(run_dir: str) -> str:
    """Returns the directory of a run's best checkpoint."""
    return os.path.join(run_dir, "best")


def checkpoint_path(directory: str, number: int) -> str:
    """Returns the path of a checkpoint."""
    return os.path.join(directory, f"ckpt-{number}{checkpoint_file.SUFFIX}")


def checkpoint_number(path: str | None) -> int:
    """Returns the number in a checkpoint's file name, 1 or more; 0 if there is no path."""
    return int(path.removesuffix(checkpoint_file.SUFFIX).rsplit("-", 1)[1]) if path else 0


def list_checkpoints(directory: str) -> list[str]:
    """Returns the paths of the checkpoints in a directory, sorted by number."""
    found = glob.glob(os.path.join(glob.escape(directory), f"ckpt-*{checkpoint_file.SUFFIX}"))
    numbered = [path for path in found if re.fullmatch(r"ckpt-\d+\.npz", os.path.basename(path))]
    return sorted(numbered, key=checkpoint_number)


def last_number(run_dir: str) -> int:
    """Returns the greatest number in use, also by a damaged checkpoint; 0 if there is none."""
    names = [
        name
        for directory in (newest_directory(run_dir), best_directory(run_dir))
        if os.path.isdir(directory)
        for name in os.listdir(directory)
    ]
    numbers = [int(found[1]) for name in names if (found := re.match(r"ckpt-(\d+)\.", name))]
    return max(numbers, default=0)


def read(path: str) -> CheckpointContents:
    """Reads a checkpoint, validates all of its arrays, and gives them their current names.

    Raises:
      DamagedError: if the file is missing, is not what was written, or has another number in its
        name.
      FormatVersionError: if another version of Tapeline wrote it.
    """
    found = checkpoint_file.read(path)
    _refuse_other_number(path, found.facts)
    return CheckpointContents(found.facts, migrated(found.arrays))


def read_metadata(path: str) -> dict[str, Any]:
    """Reads a checkpoint's manifest, as `checkpoint_file.read_metadata` does; raises as `read`."""
    facts = checkpoint_file.read_metadata(path)
    _refuse_other_number(path, facts)
    return facts


class LoadedCheckpoint(NamedTuple):
    """A checkpoint in memory; its file may have been removed.

    Attributes:
      path: path that it was read from.
      archive: contents of the file.
    """

    path: str
    archive: CheckpointContents

    @property
    def step(self) -> int:
        """The step at which it was saved."""
        return int(self.archive.facts["step"])

    @property
    def best_step(self) -> int:
        """The step of the best epoch up to then; -1: none."""
        return int(self.archive.facts["best_step"])


def load_newest(run_dir: str) -> LoadedCheckpoint | None:
    """Reads a run's newest checkpoint, also while a training process saves and prunes.

    A file that vanishes between listing and opening was pruned, so there is a newer one. Each
    further attempt requires that training has saved another checkpoint, so the attempts end.

    Returns:
      The checkpoint; None if there is none.

    Raises:
      DamagedError: if the newest one is not what was written, or is listed but cannot be opened.
      FormatVersionError: if another version of Tapeline wrote it.
    """
    vanished: MissingError | None = None
    before = None
    while (path := newest_checkpoint(run_dir)) is not None:
        if path == before:
            assert vanished is not None
            raise vanished
        try:
            return LoadedCheckpoint(path, read(path))
        except MissingError as error:
            before, vanished = path, error
    return None


def load_best(run_dir: str) -> LoadedCheckpoint | None:
    """Reads the best checkpoint, which the newest one names, also while a training process saves.

    When another step becomes the best, the old best checkpoint may be pruned. A newer checkpoint,
    which names the new best step, is written before that. So if the best one is not found, the
    newest is read again, as long as there is another newest file.

    Returns:
      The checkpoint; None if the run has no checkpoint or no best epoch yet.

    Raises:
      DamagedError: if the newest or the best one is not what was written, or the best one is
        missing.
      FormatVersionError: if another version of Tapeline wrote one of them.
    """
    before = None
    while (newest := load_newest(run_dir)) is not None and newest.best_step >= 0:
        damaged: DamagedError | None = None
        for path in reversed(list_checkpoints(best_directory(run_dir))):
            try:
                found = read(path)
            except DamagedError as error:
                if not isinstance(error, MissingError):
                    damaged = damaged or error
                continue
            if found.facts["step"] == newest.best_step:
                return LoadedCheckpoint(path, found)
        if newest.path == before:
            raise damaged or DamagedError(
                f"{newest.path} names step {newest.best_step:,} as the best, and there is no "
                f"checkpoint of it in {best_directory(run_dir)}; give --weights=newest"
            )
        before = newest.path
    return None


def find_best_checkpoint(run_dir: str, step: int) -> str | None:
    """Returns the path of the best checkpoint of a step; None if there is none."""
    for path in reversed(list_checkpoints(best_directory(run_dir))):
        with contextlib.suppress(DamagedError):
            if read_metadata(path)["step"] == step:
                return path
    return None


def newest_checkpoint(run_dir: str) -> str | None:
    """Returns the path of a run's newest checkpoint; None if there is none."""
    saved = list_checkpoints(newest_directory(run_dir))
    return saved[-1] if saved else None


def best_checkpoint_problem(run_dir: str, step: int) -> str:
    """Returns what is wrong with the best checkpoint of a step, in words; empty: nothing."""
    path = find_best_checkpoint(run_dir, step)
    if path is None:
        return f"the best checkpoint, of step {step}, is gone or damaged"
    try:
        checkpoint_file.read(path)
    except DamagedError as error:
        return str(error)
    return ""


def prune(run_dir: str, keep: int, step: int, best_step: int) -> None:
    """Removes checkpoints that are no longer needed.

    A best checkpoint of a later step was saved before a rollback. It is kept, because the run
    reaches that step again.

    Args:
      run_dir: the run directory.
      keep: number of newest checkpoints to keep.
      step: step of the newest checkpoint.
      best_step: step that the newest checkpoint names as the best.
    """
    old = list_checkpoints(newest_directory(run_dir))[:-keep]
    best = find_best_checkpoint(run_dir, best_step)
    for path in list_checkpoints(best_directory(run_dir)):
        with contextlib.suppress(DamagedError):
            if path != best and read_metadata(path)["step"] <= step:
                old.append(path)
    _remove(old)


def clear(run_dir: str) -> None:
    """Removes files that a kill left half written."""
    for directory in (newest_directory(run_dir), best_directory(run_dir)):
        _remove(glob.glob(os.path.join(glob.escape(directory), f"*{checkpoint_file.PART}")))


def rename_damaged(paths: list[str]) -> None:
    """Renames damaged files, so that no run resumes from them."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.replace(path, path + DAMAGED)


def _remove(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _refuse_other_number(path: str, facts: dict[str, Any]) -> None:
    if facts["number"] != checkpoint_number(path):
        raise DamagedError(
            f"cannot load checkpoint {path}: it is number {facts['number']} by another name"
        )
