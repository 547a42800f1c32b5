"""Lists, reads and prunes the checkpoints of a run directory; their files are the only record.

    run_dir/checkpoints/ckpt-12.npz     the newest checkpoints
    run_dir/best/ckpt-9.npz             the best checkpoint; the newest one contains its step

Both directories share one sequence of numbers. The file of a damaged checkpoint is renamed, not
deleted, so that no run resumes from it.
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
    """Returns the path of the checkpoint with a number."""
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
    """Returns the largest checkpoint number, including damaged checkpoints; 0 if there is none."""
    names = [
        name
        for directory in (newest_directory(run_dir), best_directory(run_dir))
        if os.path.isdir(directory)
        for name in os.listdir(directory)
    ]
    numbers = [int(found[1]) for name in names if (found := re.match(r"ckpt-(\d+)\.", name))]
    return max(numbers, default=0)


def read(path: str) -> CheckpointContents:
    """Reads a checkpoint, validates all arrays, and renames those of older versions.

    Raises:
      DamagedError: if the file is missing or damaged, or if the number in its name differs from the
        one in its metadata.
      FormatVersionError: if this version of Tapeline cannot read its format.
    """
    found = checkpoint_file.read(path)
    _refuse_other_number(path, found.facts)
    return CheckpointContents(found.facts, migrated(found.arrays))


def read_metadata(path: str) -> dict[str, Any]:
    """Reads a checkpoint's metadata as `checkpoint_file.read_metadata`; raises as `read` does."""
    facts = checkpoint_file.read_metadata(path)
    _refuse_other_number(path, facts)
    return facts


class LoadedCheckpoint(NamedTuple):
    """A checkpoint in memory; its file may have been removed since.

    Attributes:
      path: path of the file that was read.
      archive: contents of the file.
    """

    path: str
    archive: CheckpointContents

    @property
    def step(self) -> int:
        """The step at which the checkpoint was saved."""
        return int(self.archive.facts["step"])

    @property
    def best_step(self) -> int:
        """The step of the best epoch up to this checkpoint; -1: none."""
        return int(self.archive.facts["best_step"])


def load_newest(run_dir: str) -> LoadedCheckpoint | None:
    """Reads a run's newest checkpoint, even while a training process saves and prunes.

    A file that is removed between listing and opening was pruned, so there is a newer one, and the
    directory is listed again. Each further attempt requires that training has saved another
    checkpoint, so the number of attempts is limited.

    Returns:
      The checkpoint; None if there is none.

    Raises:
      DamagedError: if the newest checkpoint is damaged, or if it is listed but cannot be opened.
      FormatVersionError: if this version of Tapeline cannot read its format.
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
    """Reads the best checkpoint, whose step the newest one contains, even while training saves.

    When another step becomes the best, the old best checkpoint may be pruned. Before that, a newer
    checkpoint with the new best step is written. So if the best checkpoint is not found, the newest
    one is read again, as long as there is a newer file than before.

    Returns:
      The checkpoint; None if the run has no checkpoint or no best epoch yet.

    Raises:
      DamagedError: if the newest or the best checkpoint is damaged, or if the best one is missing.
      FormatVersionError: if this version of Tapeline cannot read the format of one of them.
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
    """Returns the path of the best checkpoint that was saved at a step; None if there is none."""
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
    """Returns an error message if the best checkpoint of a step is missing or damaged, else ""."""
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

    A best checkpoint of a step after `step` was saved before a rollback. It is kept, because the
    run will reach that step again.

    Args:
      run_dir: the run directory.
      keep: number of newest checkpoints to keep.
      step: step of the newest checkpoint.
      best_step: step of the best epoch, as in the newest checkpoint.
    """
    old = list_checkpoints(newest_directory(run_dir))[:-keep]
    best = find_best_checkpoint(run_dir, best_step)
    for path in list_checkpoints(best_directory(run_dir)):
        with contextlib.suppress(DamagedError):
            if path != best and read_metadata(path)["step"] <= step:
                old.append(path)
    _remove(old)


def clear(run_dir: str) -> None:
    """Removes partial files of checkpoints whose writing was interrupted."""
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
