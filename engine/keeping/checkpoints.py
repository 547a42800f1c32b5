"""Checkpoints of the one state: the newest few, and apart from them the best.

A thread writes them, so that the loop waits for a copy of the state and not for the disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

import engine
from engine.keeping import archive, catalogue
from engine.keeping.background import Background
from engine.keeping.variables import named_variables, value_of
from engine.state import TrainState
from pipelines import Identity


class Checkpoints:
    """Saves a run's state, and keeps the newest few.

    Args:
      run_dir: holds `checkpoints/` and `best/`.
      state: what is saved.
      keep: how many of the newest stay.
      data: what the run learns from; None: whatever.
      writes: whether this process saves; another one may do it for all.
    """

    def __init__(
        self,
        run_dir: str,
        state: TrainState,
        keep: int,
        *,
        data: Identity | None = None,
        writes: bool = True,
    ) -> None:
        self._run_dir, self._state, self._keep = run_dir, state, keep
        self._data, self._writes = data or Identity(), writes
        self._variables = named_variables(state)
        self._number = 0
        self._background = Background()

    def save(self, *, best: bool = False, soon: bool = False) -> None:
        """Saves a copy of the state as it is now, in the background.

        Args:
          best: as the best one too.
          soon: need not be at all, where a later one comes before the disk is free.

        Raises:
          OSError: when saving before failed.
        """
        if not self._writes:
            return
        facts, arrays = self._copied()
        self._background.put(lambda: self._write(facts, arrays, best), gives_way=soon and not best)

    def save_now(self, *, best: bool = False) -> str:
        """Saves the state and waits for the disk.

        Args:
          best: as the best one too.

        Returns:
          The path of the checkpoint; "" where another process saves.

        Raises:
          OSError: when this fails, or saving before did.
        """
        self._background.finish()
        return self._write(*self._copied(), best) if self._writes else ""

    def _copied(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Facts and arrays of a checkpoint of the state as it is now, with the next number."""
        self._number = 1 + max(self._number, catalogue.last_number(self._run_dir))
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
        """Raises OSError when saving has failed since it was last asked."""
        self._background.check()

    def finish(self) -> None:
        """Waits for the disk; then as `check`."""
        self._background.finish()

    def close(self) -> None:
        """Waits for the disk and ends the thread."""
        self._background.close()

    def _write(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], best: bool) -> str:
        """Writes both; the best first: a checkpoint's best is there when it is."""
        directories = [catalogue.newest_directory(self._run_dir)]
        if best:
            directories.insert(0, catalogue.best_directory(self._run_dir))
        written = ""
        for directory in directories:
            path = catalogue.checkpoint_path(directory, facts["number"])
            try:
                os.makedirs(directory, exist_ok=True)
                if written:
                    archive.copy(written, path)
                else:
                    archive.write(path, facts, arrays)
            except OSError as error:
                raise OSError(f"cannot save to {directory}: {error.strerror or error}") from error
            written = path
        catalogue.prune(self._run_dir, self._keep, facts["step"], facts["best_step"])
        return written
