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
from engine.keeping.archive import Archive, DamagedError
from engine.keeping.background import Background
from engine.keeping.catalogue import checkpoint_number
from engine.state import TrainState
from pipelines import Identity


def named_variables(module: tf.Module) -> dict[str, tf.Variable]:
    """Each variable by its place, "model/layers/0/kernel"."""
    found = module._flatten(predicate=lambda part: isinstance(part, tf.Variable), with_path=True)
    return {"/".join(map(str, path)): variable for path, variable in found}


class Checkpoints:
    """A run's checkpoints.

    Args:
      run_dir: holds `checkpoints/` and `best/`.
      state: what is saved and restored.
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

    # --- saving --------------------------------------------------------------------------------

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
        arrays = {name: variable.numpy() for name, variable in self._variables.items()}
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
        path = ""
        for directory in directories:
            path = catalogue.checkpoint_path(directory, facts["number"])
            try:
                os.makedirs(directory, exist_ok=True)
                archive.write(path, facts, arrays)
            except OSError as error:
                raise OSError(f"cannot save to {directory}: {error.strerror or error}") from error
        catalogue.prune(self._run_dir, self._keep, facts["step"], facts["best_step"])
        return path

    # --- restoring -----------------------------------------------------------------------------

    def restore(self) -> tuple[str | None, list[str]]:
        """Loads the newest checkpoint that is whole, and whose best one is.

        Where none has its best one any more, the newest that is whole does.

        Returns:
          Its path, None when there is none at all; and a line for each problem met on the way.

        Raises:
          OSError: when there are checkpoints and none can be loaded.
          ValueError: when they are of other data, of another network or of another version.
        """
        if self._writes:
            catalogue.clear(self._run_dir)
        directory = catalogue.newest_directory(self._run_dir)
        paths, problems = catalogue.list_checkpoints(directory), []
        damaged, without_best = [], []
        for path in reversed(paths):
            try:
                found = self._read(path)
            except DamagedError as error:
                problems.append(f"{error}; it is kept as {path}{catalogue.DAMAGED}")
                damaged.append(path)
                continue
            best_step = found.facts["best_step"]
            if best_step < 0 or not (lost := catalogue.lost_best(self._run_dir, best_step)):
                break
            problems.append(f"{lost}, which {path} needs")
            without_best.append(path)
        else:
            if not paths:
                return None, []
            if not without_best:
                raise OSError(
                    f"{problems[0].split(';')[0]}; nor can any other in {directory} be: delete "
                    "that directory to start anew, or give another --run_dir"
                )
            path = without_best[0]
            found = self._read(path)
            problems.append(f"going on from {path} without: epochs to come will make another")
        catalogue.set_aside(damaged)
        self._assign(found)
        return path, problems

    def restore_same(self, number: int) -> str | None:
        """Loads the checkpoint that another process chose, by its number; 0: none.

        Raises:
          OSError: when it cannot be loaded here.
        """
        if not number:
            return None
        path = catalogue.checkpoint_path(catalogue.newest_directory(self._run_dir), number)
        self._assign(self._read(path))
        return path

    def best_number(self) -> int:
        """The number of the checkpoint of the state's best step; 0 where there is none."""
        return checkpoint_number(catalogue.find_best(self._run_dir, int(self._state.best.step)))

    def restore_best_weights(self, number: int) -> None:
        """Loads the weights of a best checkpoint alone: the rest of the state stays.

        Raises:
          OSError: when it is damaged.
        """
        directory = catalogue.best_directory(self._run_dir)
        restore_weights(self._state, catalogue.checkpoint_path(directory, number))

    def _read(self, path: str) -> Archive:
        """A checkpoint, if it is one of this run."""
        found = catalogue.read(path)
        if not self._data.is_that_of(Identity(**found.facts["data"])):
            raise ValueError(
                f"the data set is not the one that {path} was made with: its examples have "
                "changed; put them back, or give another --run_dir"
            )
        _refuse_other_variables(path, found.arrays, self._variables)
        if found.arrays.keys() != self._variables.keys():
            strange = sorted(found.arrays.keys() - self._variables.keys())
            raise ValueError(f"{path} holds {strange[0]}, which this run does not have")
        return found

    def _assign(self, found: Archive) -> None:
        for name, variable in self._variables.items():
            variable.assign(found.arrays[name])


def restore_weights(state: TrainState, path: str) -> None:
    """Loads a checkpoint's model, and its averaged weights where the state keeps them.

    Raises:
      OSError: when the file is damaged.
      ValueError: when it holds another model.
    """
    weights = {
        name: variable
        for name, variable in named_variables(state).items()
        if name.startswith(("model/", "average/"))
    }
    found = catalogue.read(path)
    _refuse_other_variables(path, found.arrays, weights)
    for name, variable in weights.items():
        variable.assign(found.arrays[name])


def _refuse_other_variables(
    path: str, arrays: Mapping[str, np.ndarray], variables: Mapping[str, tf.Variable]
) -> None:
    """Raises ValueError where a variable's value is missing or of another shape or dtype."""
    for name, variable in variables.items():
        array = arrays.get(name)
        if array is None:
            raise ValueError(f"{path} has no {name}: it is of another network or task")
        wanted = (tuple(variable.shape), variable.dtype.name)
        if (array.shape, array.dtype.name) != wanted:
            raise ValueError(
                f"{name} in {path} is {array.dtype.name} {list(array.shape)} and has to be "
                f"{wanted[1]} {list(wanted[0])}: it is of another network, task or data set"
            )
