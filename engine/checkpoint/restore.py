"""Restores a run from its newest intact checkpoint, or only its best weights."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from engine.checkpoint import catalog, retention
from engine.checkpoint.checkpoint_file import CheckpointContents, DamagedError
from engine.checkpoint.variables import check_variables
from engine.core.state import TrainState
from engine.models.properties import named_variables
from engine.runtime import user_code
from pipelines import DataIdentity


class Restorer:
    """Loader of a run's checkpoints, which assigns their values to the variables of `state`.

    Args:
      run_dir: run directory.
      state: training state to restore.
      data: identity of the training data; None matches only checkpoints saved with None.
      writes: whether `tidy` changes files, True on one worker; on other workers, it does nothing.
    """

    def __init__(
        self,
        run_dir: str,
        state: TrainState,
        *,
        data: DataIdentity | None = None,
        writes: bool = True,
    ) -> None:
        self._run_dir, self._state = run_dir, state
        self._data, self._writes = data or DataIdentity(), writes
        self._variables = named_variables(state)
        self._damaged: list[str] = []
        self._says_changes = True  # once: not again after a rollback

    def newest(self) -> tuple[str | None, list[str]]:
        """Restores the newest intact checkpoint, if possible one with an intact best checkpoint.

        The best checkpoint is the one that the restored checkpoint names as the best. Changes no
        files; call `tidy` to rename the damaged ones.

        Returns:
          The path of the restored checkpoint, or None if there is no checkpoint; and a message for
          each problem: a damaged checkpoint, a missing or damaged best checkpoint, and, in the
          first call only, changed files of `--load`.

        Raises:
          OSError: if there are checkpoints but none can be loaded.
          ValueError: if the data set or the variables of a checkpoint are not those of the run, or
            if this version of Tapeline cannot read the format.
        """
        directory = catalog.newest_directory(self._run_dir)
        paths = catalog.list_checkpoints(directory)
        problems: list[str] = []
        without_best: list[str] = []
        self._damaged = []
        for path in reversed(paths):
            try:
                contents = self._read(path)
            except DamagedError as error:
                problems.append(f"{error}; it is kept as {path}{catalog.DAMAGED}")
                self._damaged.append(path)
                continue
            best_step = contents.facts["best_step"]
            problem = best_step >= 0 and catalog.best_checkpoint_problem(self._run_dir, best_step)
            if not problem:
                break
            problems.append(f"{problem}, which {path} needs")
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
            contents = self._read(path)
            problems.append(f"going on from {path} without: epochs to come will make another")
        _assign(self._variables, contents)
        if self._says_changes and (changes := _changed_code(path, contents)):
            problems.append(changes)
        self._says_changes = False
        return path, problems

    def tidy(self) -> None:
        """Renames the damaged files that the last call of `newest` found; removes partial files."""
        if self._writes:
            retention.tidy(self._run_dir, self._damaged)

    def same(self, number: int) -> str | None:
        """Restores checkpoint `number`, which the chief worker has chosen; returns its path.

        For 0, restores nothing and returns None.

        Raises:
          OSError: if this worker cannot load the checkpoint.
          ValueError: as in `newest`.
        """
        if not number:
            return None
        path = catalog.checkpoint_path(catalog.newest_directory(self._run_dir), number)
        _assign(self._variables, self._read(path))
        return path

    def best_number(self) -> int:
        """Returns the number of the best checkpoint, of step `state.best.step`; 0 if there is none.

        Raises:
          ValueError: if this version of Tapeline cannot read the format of a best checkpoint.
        """
        path = catalog.find_best_checkpoint(self._run_dir, int(self._state.best.step))
        return catalog.checkpoint_number(path)

    def restore_best_weights(self, number: int) -> None:
        """Restores only the weights, and their EMA if any, from the best checkpoint `number`.

        Raises:
          OSError: if the checkpoint is missing or damaged.
          ValueError: if the checkpoint belongs to another model, or if this version of Tapeline
            cannot read its format.
        """
        path = catalog.checkpoint_path(catalog.best_directory(self._run_dir), number)
        restore_weights(self._state, path, catalog.read(path))

    def _read(self, path: str) -> CheckpointContents:
        """Reads a checkpoint, and checks that it has the data set and the variables of the run.

        Raises:
          DamagedError: if the file is missing or damaged.
          ValueError: if the data set or the variables differ, or if this version of Tapeline cannot
            read the format.
        """
        contents = catalog.read(path)
        if not self._data.matches(DataIdentity(**contents.facts["data"])):
            raise ValueError(
                f"the data set is not the one that {path} was made with: its examples have "
                "changed; put them back, or give another --run_dir"
            )
        check_variables(path, contents.arrays, self._variables)
        if unknown := sorted(contents.arrays.keys() - self._variables.keys()):
            raise ValueError(f"{path} holds {unknown[0]}, which this run does not have")
        return contents


def restore_weights(state: TrainState, path: str, contents: CheckpointContents) -> None:
    """Assigns a checkpoint's weights, and their EMA if the state has one, to the state.

    `path` is only for messages: the file is not opened.

    Raises:
      ValueError: if a weight is missing in the checkpoint, or has another shape or dtype.
    """
    variables = named_variables(state).items()
    weights = {name: value for name, value in variables if name.startswith(("model/", "ema/"))}
    assign(weights, path, contents)


def assign(variables: Mapping[str, tf.Variable], path: str, contents: CheckpointContents) -> None:
    """Assigns a checkpoint's arrays to the variables of the same names.

    `path` is only for messages: the file is not opened.

    Raises:
      ValueError: if an array is missing, or has another shape or dtype than its variable.
    """
    check_variables(path, contents.arrays, variables)
    _assign(variables, contents)


def _changed_code(path: str, contents: CheckpointContents) -> str:
    """Returns a message if files of `--load` differ from those of a checkpoint, else ""."""
    before = contents.facts.get("load")
    if before is None or not (names := user_code.differences(before)):  # None: of 0.4.0
        return ""
    verb = "has" if len(names) == 1 else "have"
    said = f"{verb} changed since {path} was saved"
    return f"{', '.join(names)} {said}: going on with what is there now"


def _assign(variables: Mapping[str, tf.Variable], contents: CheckpointContents) -> None:
    for name, variable in variables.items():
        variable.assign(contents.arrays[name])
