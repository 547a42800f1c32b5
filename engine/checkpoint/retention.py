"""Removes the checkpoints of a run that are no longer needed; reads the step of each file once."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Collection, Iterable

from engine.checkpoint import catalog, checkpoint_file
from engine.checkpoint.checkpoint_file import DamagedError


class Retention:
    """Remover of a run's old checkpoints, which remembers the step of each file that it has read.

    Files that cannot be removed or have damaged metadata are ignored.

    Args:
      run_dir: run directory.
      keep: number of newest checkpoints that remain, 1 or more.
    """

    def __init__(self, run_dir: str, keep: int) -> None:
        self._run_dir, self._keep = run_dir, keep
        self._steps: dict[str, int] = {}  # by path; a checkpoint number is not used again

    def prune(self, step: int, best_steps: Collection[int]) -> None:
        """Removes all checkpoints except the `keep` newest, the best ones and those in kept/.

        Of several best checkpoints of a step, the one with the largest number remains. A best
        checkpoint of a step after `step` was saved before a rollback; it also remains, because the
        run will reach that step again.

        Args:
          step: step of the newest checkpoint.
          best_steps: steps of the evaluations whose checkpoints remain in best/.

        Raises:
          FormatVersionError: if this version of Tapeline cannot read the format of a best
            checkpoint.
        """
        old = catalog.list_checkpoints(catalog.newest_directory(self._run_dir))[: -self._keep]
        latest: dict[int, str] = {}
        for path in catalog.list_checkpoints(catalog.best_directory(self._run_dir)):
            if (saved := self._step(path)) is None:
                continue
            if saved in best_steps:
                if saved in latest:
                    old.append(latest[saved])
                latest[saved] = path
            elif saved <= step:
                old.append(path)
        self._remove(old)

    def prune_kept(self, step: int) -> None:
        """Removes all checkpoints of `step` in kept/ but the one with the largest number.

        There are several if a killed run has reached the step again.

        Raises:
          FormatVersionError: if this version of Tapeline cannot read the format of a kept
            checkpoint.
        """
        paths = catalog.list_checkpoints(catalog.kept_directory(self._run_dir))
        self._remove([path for path in paths if self._step(path) == step][:-1])

    def _step(self, path: str) -> int | None:
        """Returns the step at which a checkpoint was saved; None if its metadata is damaged."""
        if path not in self._steps:
            with contextlib.suppress(DamagedError):
                self._steps[path] = int(catalog.read_metadata(path)["step"])
        return self._steps.get(path)

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            _remove(path)
            self._steps.pop(path, None)


def tidy(run_dir: str, damaged: Iterable[str]) -> None:
    """Appends ".damaged" to the names of the files at the paths `damaged`; removes partial files.

    No run resumes from a renamed file. Files that cannot be renamed or removed are ignored.
    """
    for path in damaged:
        with contextlib.suppress(OSError):
            os.replace(path, path + catalog.DAMAGED)
    for directory in catalog.directories(run_dir):
        for name in glob.glob(f"*{checkpoint_file.PART}", root_dir=directory):
            _remove(os.path.join(directory, name))


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
