"""Lists and reads the checkpoints of a run directory; the file names are the only index.

    run_dir/checkpoints/ckpt-12.npz     the newest checkpoints
    run_dir/best/ckpt-9.npz             the best checkpoints; the newest one contains their steps
    run_dir/kept/ckpt-4.npz             checkpoints that are kept for good, see --keep_every

Checkpoint numbers increase; the directories share one sequence of numbers.
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
# Steps of checkpoint files that were read, by (path, inode, bytes, time of change in nanoseconds).
KnownSteps = dict[tuple[str, int, int, int], int]


def newest_directory(run_dir: str) -> str:
    """Returns the path of the directory of a run's newest checkpoints."""
    return os.path.join(run_dir, "checkpoints")


def best_directory(run_dir: str) -> str:
    """Returns the path of the directory of a run's best checkpoints."""
    return os.path.join(run_dir, "best")


def kept_directory(run_dir: str) -> str:
    """Returns the path of the directory of a run's checkpoints that are kept for good."""
    return os.path.join(run_dir, "kept")


def directories(run_dir: str) -> tuple[str, ...]:
    """Returns the paths of checkpoints/, best/ and kept/ in `run_dir`, which may not exist."""
    return newest_directory(run_dir), best_directory(run_dir), kept_directory(run_dir)


def checkpoint_path(directory: str, number: int) -> str:
    """Returns the path of checkpoint `number` in `directory`."""
    return os.path.join(directory, f"ckpt-{number}{checkpoint_file.SUFFIX}")


def checkpoint_number(path: str | None) -> int:
    """Returns the number in a checkpoint's file name, 1 or more; 0 if `path` is None or empty."""
    return int(path.removesuffix(checkpoint_file.SUFFIX).rsplit("-", 1)[1]) if path else 0


def list_checkpoints(directory: str) -> list[str]:
    """Returns the paths of the checkpoints in a directory, in ascending order of their numbers.

    Returns an empty list if the directory does not exist.
    """
    names = glob.glob(f"ckpt-*{checkpoint_file.SUFFIX}", root_dir=directory)
    numbered = [name for name in names if re.fullmatch(r"ckpt-\d+\.npz", name)]
    return [os.path.join(directory, name) for name in sorted(numbered, key=checkpoint_number)]


def last_number(run_dir: str) -> int:
    """Returns the largest checkpoint number in a run's file names; 0 if there is none.

    The names of damaged and partial files count, too.
    """
    present = filter(os.path.isdir, directories(run_dir))
    names = [name for directory in present for name in os.listdir(directory)]
    numbers = [int(match[1]) for name in names if (match := re.match(r"ckpt-(\d+)\.", name))]
    return max(numbers, default=0)


def read(path: str) -> CheckpointContents:
    """Reads and validates a checkpoint; converts the arrays of an older version by `migrated`.

    Raises:
      MissingError: if the file does not exist, or was removed while open on a network file system.
      DamagedError: if the file cannot be read, differs from what was written, or has a number in
        its name that is not that of the checkpoint.
      FormatVersionError: if this version of Tapeline cannot read the format.
    """
    metadata, arrays = checkpoint_file.read(path)
    _check_number(path, metadata)
    return CheckpointContents(metadata, migrated(arrays))


def read_metadata(path: str) -> dict[str, Any]:
    """Reads the metadata of a checkpoint without the arrays; checks the number in the file's name.

    Returns:
      The metadata as a dict, with an entry "arrays": {name: {"dtype", "shape", "sha256"}}.

    Raises:
      MissingError: if the file does not exist, or was removed while open on a network file system.
      DamagedError: if the metadata cannot be read, or if the number in the file's name is not that
        of the checkpoint.
      FormatVersionError: if this version of Tapeline cannot read the format.
    """
    metadata = checkpoint_file.read_metadata(path)
    _check_number(path, metadata)
    return metadata


def _check_number(path: str, metadata: dict[str, Any]) -> None:
    if metadata["number"] != checkpoint_number(path):
        raise DamagedError(
            f"cannot load checkpoint {path}: it is number {metadata['number']} by another name"
        )


class LoadedCheckpoint(NamedTuple):
    """The contents of a checkpoint, and the path of its file, which may have been removed since."""

    path: str
    archive: CheckpointContents

    @property
    def step(self) -> int:
        """The step at which the checkpoint was saved."""
        return int(self.archive.facts["step"])

    @property
    def best_step(self) -> int:
        """The step of the best evaluation up to this checkpoint; -1 if there is none yet."""
        return int(self.archive.facts["best_step"])

    @property
    def best_steps(self) -> list[int]:
        """The steps of the best evaluations whose checkpoints are kept, the best one first."""
        best = [self.best_step] if self.best_step >= 0 else []
        return list(self.archive.facts.get("best_steps", best))  # of an older version: only `best`


def load_newest(run_dir: str) -> LoadedCheckpoint | None:
    """Reads a run's newest checkpoint; returns None if there is none.

    A training process may save and prune meanwhile: if the file is removed between listing and
    opening, the newer checkpoint is read.

    Raises:
      DamagedError: if the newest checkpoint is damaged, or if it is listed but cannot be opened.
      FormatVersionError: if this version of Tapeline cannot read its format.
    """
    path = newest_checkpoint(run_dir)
    while path is not None:
        try:
            return LoadedCheckpoint(path, read(path))
        except MissingError:
            previous, path = path, newest_checkpoint(run_dir)
            if path == previous:
                raise
    return None


def load_best(run_dir: str) -> LoadedCheckpoint | None:
    """Reads a run's best checkpoint; returns None if there is no checkpoint or no best one yet.

    The newest checkpoint contains the best step. If a training process prunes the best checkpoint
    meanwhile, the newest one, which then contains another best step, is read again.

    Raises:
      DamagedError: if the newest or the best checkpoint is damaged, or if the best one is missing.
      FormatVersionError: if this version of Tapeline cannot read the format of one of them.
    """
    previous = None
    while (newest := load_newest(run_dir)) is not None and newest.best_step >= 0:
        try:
            return read_best(run_dir, newest.best_step, newest.path)
        except DamagedError:
            if newest.path == previous:
                raise
        previous = newest.path
    return None


def read_best(run_dir: str, step: int, named_by: str) -> LoadedCheckpoint:
    """Reads the checkpoint in best/ that was saved at `step`; of several, the first intact one.

    Args:
      run_dir: run directory.
      step: step of the checkpoint.
      named_by: path of the newest checkpoint, which contains this step, for the error message.

    Raises:
      MissingError: if there is none, such as if a training process has removed it.
      DamagedError: if all checkpoints of the step are damaged.
      FormatVersionError: if this version of Tapeline cannot read the format of a file.
    """
    damaged: DamagedError | None = None
    for path in reversed(list_checkpoints(best_directory(run_dir))):
        try:
            if read_metadata(path)["step"] == step:
                return LoadedCheckpoint(path, read(path))
        except MissingError:
            continue
        except DamagedError as error:
            damaged = damaged or error
    raise damaged or MissingError(
        f"{named_by} names step {step:,} as the best, and there is no checkpoint of it in "
        f"{best_directory(run_dir)}; give --weights=newest"
    )


def load_step(run_dir: str, step: int) -> LoadedCheckpoint | None:
    """Reads a run's checkpoint that was saved at `step`; returns None if there is none.

    Of several, reads the first intact one. Training may remove one meanwhile; then another is read.

    Raises:
      DamagedError: if all checkpoints of the step are damaged.
      FormatVersionError: if this version of Tapeline cannot read the format of a file.
    """
    damaged: DamagedError | None = None
    for saved, path in reversed(_saved(run_dir, {})):
        if saved != step:
            continue
        try:
            return LoadedCheckpoint(path, read(path))
        except MissingError:
            continue
        except DamagedError as error:
            damaged = damaged or error
    if damaged is not None:
        raise damaged
    return None


def saved_steps(run_dir: str, known: KnownSteps | None = None) -> dict[int, str]:
    """Returns {step: path} for all steps at which the checkpoints of a run were saved.

    Of several checkpoints of a step, the path is that of the one in kept/, or otherwise in best/;
    of several in a directory, that of the one with the largest number. Reads only the metadata of
    the files; a file with damaged metadata is ignored.

    Args:
      run_dir: run directory.
      known: steps of files that are not read, unless they have changed; this adds those it reads.

    Raises:
      FormatVersionError: if this version of Tapeline cannot read the format of a file.
    """
    return dict(_saved(run_dir, {} if known is None else known))


def _saved(run_dir: str, known: KnownSteps) -> list[tuple[int, str]]:
    """Returns (step, path) of all checkpoints of a run, those in kept/ last; see `saved_steps`."""
    found = []
    for directory in directories(run_dir):
        for path in list_checkpoints(directory):
            with contextlib.suppress(DamagedError, FileNotFoundError):
                status = os.stat(path)
                file = path, status.st_ino, status.st_size, status.st_mtime_ns
                if file not in known:
                    known[file] = int(read_metadata(path)["step"])
                found.append((known[file], path))
    return found


def find_best_checkpoint(run_dir: str, step: int) -> str | None:
    """Returns the path of the best checkpoint saved at `step`; None if there is none.

    Reads only the metadata of the files, so damaged arrays are not noticed. A file with damaged
    metadata is ignored.

    Raises:
      FormatVersionError: if this version of Tapeline cannot read the format of a file.
    """
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
    """Returns an error message if the best checkpoint of `step` is missing or damaged, else "".

    Raises:
      FormatVersionError: if this version of Tapeline cannot read the format of a file.
    """
    path = find_best_checkpoint(run_dir, step)
    if path is None:
        return f"the best checkpoint, of step {step}, is gone or damaged"
    try:
        checkpoint_file.read(path)
        return ""
    except DamagedError as error:
        return str(error)
