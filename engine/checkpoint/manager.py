"""Saves checkpoints of the training state: the newest few, and the best one separately.

A background thread writes the files, so the training loop waits only until the state is copied.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

import engine
from engine.checkpoint import catalog, checkpoint_file
from engine.checkpoint.variables import named_variables, value_of
from engine.core.state import TrainState
from engine.runtime.async_worker import AsyncWorker
from pipelines import DataIdentity


class CheckpointManager:
    """Saves a run's state; keeps the newest few checkpoints and the best one.

    Args:
      run_dir: run directory, which holds `checkpoints/` and `best/`.
      state: the state to save.
      keep: number of newest checkpoints to keep.
      data: identity of the training data; None: an empty identity.
      writes: whether this process saves; True on one worker only.
    """

    def __init__(
        self,
        run_dir: str,
        state: TrainState,
        keep: int,
        *,
        data: DataIdentity | None = None,
        writes: bool = True,
    ) -> None:
        self._run_dir, self._state, self._keep = run_dir, state, keep
        self._data, self._writes = data or DataIdentity(), writes
        self._variables = named_variables(state)
        self._number = 0
        self._background = AsyncWorker()

    def save(self, *, best: bool = False, soon: bool = False) -> None:
        """Saves a copy of the current state in the background.

        Args:
          best: whether to save it also as the best checkpoint.
          soon: whether a later save may replace this one while it is queued; a best checkpoint is
            never replaced.

        Raises:
          OSError: if an earlier save failed.
        """
        if not self._writes:
            return
        facts, arrays = self._copied()
        self._background.put(
            lambda: self._write(facts, arrays, best), replaceable=soon and not best
        )

    def save_and_wait(self, *, best: bool = False) -> str:
        """Saves the current state, and waits until the checkpoint is written.

        Args:
          best: whether to save it also as the best checkpoint.

        Returns:
          The path of the checkpoint; "" if `writes` is False.

        Raises:
          OSError: if this or an earlier save failed.
        """
        self._background.finish()
        return self._write(*self._copied(), best) if self._writes else ""

    def _copied(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns metadata, with the next checkpoint number, and copies of the state's arrays."""
        self._number = 1 + max(self._number, catalog.last_number(self._run_dir))
        arrays = {name: value_of(variable) for name, variable in self._variables.items()}
        facts = {
            "number": self._number,
            "step": int(arrays["step"]),
            "best_step": int(arrays["best/step"]),
            "data": self._data._asdict(),
            "tapeline": engine.__version__,
            "tensorflow": tf.__version__,
            "saved_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        return facts, arrays

    def check(self) -> None:
        """Raises OSError if a save has failed since the last check."""
        self._background.check()

    def finish(self) -> None:
        """Waits for pending saves, then raises as `check` does."""
        self._background.finish()

    def close(self) -> None:
        """Waits for pending saves, then ends the background thread."""
        self._background.close()

    def _write(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], best: bool) -> str:
        """Writes a checkpoint, prunes old ones, and returns the path.

        Writes to `best/` first, so that the best checkpoint exists before the newest one refers to
        it.
        """
        directories = [catalog.newest_directory(self._run_dir)]
        if best:
            directories.insert(0, catalog.best_directory(self._run_dir))
        written = ""
        for directory in directories:
            path = catalog.checkpoint_path(directory, facts["number"])
            try:
                os.makedirs(directory, exist_ok=True)
                if written:
                    checkpoint_file.copy(written, path)
                else:
                    checkpoint_file.write(path, facts, arrays)
            except OSError as error:
                raise OSError(f"cannot save to {directory}: {error.strerror or error}") from error
            written = path
        catalog.prune(self._run_dir, self._keep, facts["step"], facts["best_step"])
        return written
