"""Saves checkpoints of the training state in a background thread, and removes old ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import tensorflow as tf

import engine
from engine.checkpoint import catalog, checkpoint_file
from engine.checkpoint.checkpoint_file import CheckpointContents
from engine.checkpoint.retention import Retention
from engine.checkpoint.variables import value_of
from engine.core.state import TrainState
from engine.models.properties import named_variables
from engine.runtime import user_code
from engine.runtime.async_worker import AsyncWorker
from pipelines import DataIdentity


class CheckpointManager:
    """Saver of a run's state, which also removes old checkpoints.

    The `keep` newest checkpoints, the best ones and those that are kept for good remain.

    A checkpoint holds the variables of the state and, as metadata, `data`, the digests of the files
    of `--load`, the result of `describe`, and number, steps, versions and time of the checkpoint.

    Args:
      run_dir: run directory.
      state: training state.
      keep: number of newest checkpoints that are kept.
      data: identity of the training data; None: an empty identity.
      describe: returns further metadata; called by the thread that writes a checkpoint.
      writes: whether to save, True on one worker; on other workers, nothing is saved.
    """

    def __init__(
        self,
        run_dir: str,
        state: TrainState,
        keep: int,
        *,
        data: DataIdentity | None = None,
        describe: Callable[[], Mapping[str, Any]] = dict,
        writes: bool = True,
    ) -> None:
        self._run_dir, self._describe = run_dir, describe
        self._data, self._writes = data or DataIdentity(), writes
        self._state, self._variables = state, named_variables(state)
        self._code = user_code.digests()
        self._number = 0
        self._retention = Retention(run_dir, keep)
        self._background = AsyncWorker()

    def save(self, *, best: bool = False, kept: bool = False, soon: bool = False) -> None:
        """Saves the current state in a background thread.

        Waits only for the copy of the state, and for a queued save that may not be replaced.

        Args:
          best: whether to save the state as one of the best checkpoints, too.
          kept: whether to save the state as a checkpoint that is kept for good, too.
          soon: whether a later save may replace this one while it is queued; ignored with `best`
            and `kept`.

        Raises:
          OSError: if an earlier save failed.
        """
        if self._writes:
            contents = self._copy_state()
            replaceable = soon and not (best or kept)
            self._background.put(lambda: self._write(contents, best, kept), replaceable=replaceable)

    def save_and_wait(self, *, best: bool = False) -> str:
        """Saves the current state in this thread, after pending saves; returns the file's path.

        If `best`, saves the state as one of the best checkpoints, too; the path is that of the
        newest checkpoint. On workers that do not write, only waits and returns "".

        Raises:
          OSError: if this or an earlier save failed.
        """
        self._background.finish()
        return self._write(self._copy_state(), best) if self._writes else ""

    def _copy_state(self) -> CheckpointContents:
        """Takes the next checkpoint number; returns copies of the state's arrays, and metadata.

        The metadata lack the result of `describe`.
        """
        self._number = 1 + max(self._number, catalog.last_number(self._run_dir))
        arrays = {name: value_of(variable) for name, variable in self._variables.items()}
        metadata = {
            "number": self._number,
            "step": int(arrays["step"]),
            "best_step": int(arrays["best/step"]),
            "best_steps": [int(step) for step in arrays["best/steps"] if step >= 0],
            "data": self._data._asdict(),
            "load": self._code,
            "tapeline": engine.__version__,
            "tensorflow": tf.__version__,
            "saved_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        return CheckpointContents(metadata, arrays)

    def tidy(self, *, kept: bool) -> None:
        """Removes checkpoints that a save would have removed, but for a kill during that save.

        Call it after a restore. `kept` is whether checkpoints of this step are kept for good.

        Raises:
          FormatVersionError: if this version of Tapeline cannot read the format of an old file.
        """
        if self._writes:
            best, step = self._state.best, int(self._state.step)
            self._prune(step, [int(best.step), *best.steps.numpy().tolist()], kept)

    def check(self) -> None:
        """Raises OSError if a save has failed since the last check."""
        self._background.check()

    def finish(self) -> None:
        """Waits for pending saves, then raises OSError if one has failed."""
        self._background.finish()

    def close(self) -> None:
        """Waits for pending saves and ends the background thread; ignores errors of saves."""
        self._background.close()

    def _write(self, contents: CheckpointContents, best: bool, kept: bool = False) -> str:
        """Writes a checkpoint to checkpoints/, if `best` also to best/, and if `kept` to kept/.

        Then removes old checkpoints.

        Returns:
          The path of the file in checkpoints/.

        Raises:
          OSError: if a file cannot be written.
          FormatVersionError: if this version of Tapeline cannot read the format of an old file.
        """
        metadata, arrays = {**self._describe(), **contents.facts}, contents.arrays
        directories = [catalog.newest_directory(self._run_dir)]
        # These first, so that they exist before the newest checkpoint, from which the run resumes.
        if best:
            directories.insert(0, catalog.best_directory(self._run_dir))
        if kept:
            directories.insert(0, catalog.kept_directory(self._run_dir))
        written = ""
        for directory in directories:
            path = catalog.checkpoint_path(directory, metadata["number"])
            try:
                os.makedirs(directory, exist_ok=True)
                if written:
                    checkpoint_file.copy(written, path)
                else:
                    checkpoint_file.write(path, metadata, arrays)
            except OSError as error:
                raise OSError(f"cannot save to {directory}: {error.strerror or error}") from error
            written = path
        self._prune(metadata["step"], [metadata["best_step"], *metadata["best_steps"]], kept)
        return written

    def _prune(self, step: int, best_steps: Collection[int], kept: bool) -> None:
        self._retention.prune(step, best_steps)
        if kept:
            self._retention.prune_kept(step)
