"""Which checkpoints a run directory holds, told from their files alone.

    run_dir/checkpoints/ckpt-12.npz     the newest ones
    run_dir/best/ckpt-9.npz             of the step that the newest one calls the best

They are numbered one after the other over both directories. One that is damaged keeps its file,
under a name that nothing goes on from.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from typing import Any, NamedTuple

from engine.keeping import archive
from engine.keeping.archive import Archive, DamagedError, MissingError

DAMAGED = ".damaged"


def newest_directory(run_dir: str) -> str:
    """Where a run's newest checkpoints are."""
    return os.path.join(run_dir, "checkpoints")


def best_directory(run_dir: str) -> str:
    """Where its best one is."""
    return os.path.join(run_dir, "best")


def checkpoint_path(directory: str, number: int) -> str:
    """The path of a checkpoint."""
    return os.path.join(directory, f"ckpt-{number}{archive.SUFFIX}")


def checkpoint_number(path: str | None) -> int:
    """The number in a checkpoint's name, 1 or more; 0 for none."""
    return int(path.removesuffix(archive.SUFFIX).rsplit("-", 1)[1]) if path else 0


def list_checkpoints(directory: str) -> list[str]:
    """Paths of the checkpoints in a directory, by number."""
    found = glob.glob(os.path.join(glob.escape(directory), f"ckpt-*{archive.SUFFIX}"))
    numbered = [path for path in found if re.fullmatch(r"ckpt-\d+\.npz", os.path.basename(path))]
    return sorted(numbered, key=checkpoint_number)


def last_number(run_dir: str) -> int:
    """The greatest number that is taken, by a damaged one too; 0: none."""
    names = [
        name
        for directory in (newest_directory(run_dir), best_directory(run_dir))
        if os.path.isdir(directory)
        for name in os.listdir(directory)
    ]
    numbers = [int(found[1]) for name in names if (found := re.match(r"ckpt-(\d+)\.", name))]
    return max(numbers, default=0)


def read(path: str) -> Archive:
    """Reads a checkpoint and checks all of it.

    Raises:
      DamagedError: when it is not there, not what was written, or another by its name.
      OtherFormatError: when another version of Tapeline wrote it.
    """
    found = archive.read(path)
    _refuse_other_number(path, found.facts)
    return found


def read_facts(path: str) -> dict[str, Any]:
    """What a checkpoint is, see `archive.read_facts`; raises as `read`."""
    facts = archive.read_facts(path)
    _refuse_other_number(path, facts)
    return facts


class Snapshot(NamedTuple):
    """A checkpoint in memory; its file may be gone.

    path: where it was.
    archive: what it holds.
    """

    path: str
    archive: Archive

    @property
    def step(self) -> int:
        """The step that it was saved at."""
        return int(self.archive.facts["step"])

    @property
    def best_step(self) -> int:
        """The step of the best epoch up to then; -1: there was none."""
        return int(self.archive.facts["best_step"])


def load_newest(run_dir: str) -> Snapshot | None:
    """Reads a run's newest checkpoint, also while a training saves and prunes there.

    A file that vanishes between listing and opening has been pruned, so there is a newer one. Each
    further attempt needs another newest file: it ends unless the training goes on for ever.

    Returns:
      None where there is none.

    Raises:
      DamagedError: when the newest one is not what was written, or cannot be opened though it is
        listed.
      OtherFormatError: when another version of Tapeline wrote it.
    """
    vanished: MissingError | None = None
    before = None
    while (path := newest_of(run_dir)) is not None:
        if path == before:
            assert vanished is not None
            raise vanished
        try:
            return Snapshot(path, read(path))
        except MissingError as error:
            before, vanished = path, error
    return None


def load_best(run_dir: str) -> Snapshot | None:
    """Reads the best checkpoint, which the newest one names, also while a training saves there.

    The best one of a step that is no longer the best may be pruned. A newer checkpoint, which names
    another, was written before that: so where it is not found, the newest is read again, as often
    as there is another one.

    Returns:
      None where there is none: the run has no checkpoint, or no epoch has been judged.

    Raises:
      DamagedError: when the newest or the best one is not what was written, or the best one is
        lost.
      OtherFormatError: when another version of Tapeline wrote one of them.
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
                return Snapshot(path, found)
        if newest.path == before:
            raise damaged or DamagedError(
                f"{newest.path} names step {newest.best_step:,} as the best, and there is no "
                f"checkpoint of it in {best_directory(run_dir)}; give --weights=newest"
            )
        before = newest.path
    return None


def find_best(run_dir: str, step: int) -> str | None:
    """Path of the best checkpoint, if it is that of a step; None where there is none."""
    for path in reversed(list_checkpoints(best_directory(run_dir))):
        with contextlib.suppress(DamagedError):
            if read_facts(path)["step"] == step:
                return path
    return None


def newest_of(run_dir: str) -> str | None:
    """Path of a run's newest checkpoint; None where there is none."""
    saved = list_checkpoints(newest_directory(run_dir))
    return saved[-1] if saved else None


def lost_best(run_dir: str, step: int) -> str:
    """What is wrong with the best checkpoint of a step, in words; empty: nothing."""
    path = find_best(run_dir, step)
    if path is None:
        return f"the best checkpoint, of step {step}, is gone or damaged"
    try:
        archive.read(path)
    except DamagedError as error:
        return str(error)
    return ""


def prune(run_dir: str, keep: int, step: int, best_step: int) -> None:
    """Takes away what nothing needs any more.

    A best one of a later step is from before a run fell back, which will come to it again.

    Args:
      run_dir: of the run.
      keep: how many of the newest stay.
      step: of the newest one.
      best_step: the one that it calls the best.
    """
    old = list_checkpoints(newest_directory(run_dir))[:-keep]
    best = find_best(run_dir, best_step)
    for path in list_checkpoints(best_directory(run_dir)):
        with contextlib.suppress(DamagedError):
            if path != best and read_facts(path)["step"] <= step:
                old.append(path)
    _remove(old)


def clear(run_dir: str) -> None:
    """Takes away what a kill left half written."""
    for directory in (newest_directory(run_dir), best_directory(run_dir)):
        _remove(glob.glob(os.path.join(glob.escape(directory), f"*{archive.PART}")))


def set_aside(paths: list[str]) -> None:
    """Keeps damaged files by names that nothing goes on from."""
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
