"""Restores a run from its newest intact checkpoint."""

from __future__ import annotations

from engine.checkpoint import catalog
from engine.checkpoint.catalog import checkpoint_number
from engine.checkpoint.checkpoint_file import CheckpointContents, DamagedError
from engine.checkpoint.variables import check_variables, named_variables
from engine.core.state import TrainState
from pipelines import DataIdentity


class Restorer:
    """Restores the state of a run from its checkpoints.

    Args:
      run_dir: run directory, which holds `checkpoints/` and `best/`.
      state: the state to restore.
      data: identity of the training data; None: empty, matches only checkpoints saved with an
        empty one.
      writes: whether `tidy` may rename and delete files; True on one worker only.
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

    def newest(self) -> tuple[str | None, list[str]]:
        """Loads the newest intact checkpoint whose best checkpoint is also intact.

        If there is none, loads the newest intact checkpoint. Does not change files; `tidy` does.

        Returns:
          The path, None if there is no checkpoint; and a message for each problem found.

        Raises:
          OSError: if there are checkpoints but none can be loaded.
          ValueError: if a checkpoint belongs to other data or another network, or if this version
            of Tapeline cannot read its format.
        """
        directory = catalog.newest_directory(self._run_dir)
        paths, problems = catalog.list_checkpoints(directory), list[str]()
        without_best: list[str] = []
        damaged = self._damaged = []
        for path in reversed(paths):
            try:
                found = self._read(path)
            except DamagedError as error:
                problems.append(f"{error}; it is kept as {path}{catalog.DAMAGED}")
                damaged.append(path)
                continue
            best_step = found.facts["best_step"]
            if best_step < 0 or not (
                lost := catalog.best_checkpoint_problem(self._run_dir, best_step)
            ):
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
        self._assign(found)
        return path, problems

    def tidy(self) -> None:
        """Renames the damaged files that `newest` found, and removes partial files."""
        if self._writes:
            catalog.rename_damaged(self._damaged)
            catalog.clear(self._run_dir)

    def same(self, number: int) -> str | None:
        """Loads the checkpoint that the chief chose; returns its path.

        Args:
          number: number of the checkpoint; 0: loads nothing and returns None.

        Raises:
          OSError: if this worker cannot load it.
          ValueError: as in `newest`.
        """
        if not number:
            return None
        path = catalog.checkpoint_path(catalog.newest_directory(self._run_dir), number)
        self._assign(self._read(path))
        return path

    def best_number(self) -> int:
        """Returns the number of the checkpoint of the state's best step; 0 if there is none."""
        return checkpoint_number(
            catalog.find_best_checkpoint(self._run_dir, int(self._state.best.step))
        )

    def restore_best_weights(self, number: int) -> None:
        """Loads only the weights and their EMA from a best checkpoint.

        The rest of the state is unchanged.

        Args:
          number: number of the checkpoint.

        Raises:
          OSError: if the checkpoint is missing or damaged.
          ValueError: if it belongs to another model, or if this version of Tapeline cannot read its
            format.
        """
        directory = catalog.best_directory(self._run_dir)
        path = catalog.checkpoint_path(directory, number)
        restore_weights(self._state, path, catalog.read(path))

    def _read(self, path: str) -> CheckpointContents:
        """Reads a checkpoint; checks that its data set and its variables are those of this run."""
        found = catalog.read(path)
        if not self._data.matches(DataIdentity(**found.facts["data"])):
            raise ValueError(
                f"the data set is not the one that {path} was made with: its examples have "
                "changed; put them back, or give another --run_dir"
            )
        check_variables(path, found.arrays, self._variables)
        if found.arrays.keys() != self._variables.keys():
            strange = sorted(found.arrays.keys() - self._variables.keys())
            raise ValueError(f"{path} holds {strange[0]}, which this run does not have")
        return found

    def _assign(self, found: CheckpointContents) -> None:
        for name, variable in self._variables.items():
            variable.assign(found.arrays[name])


def restore_weights(state: TrainState, path: str, found: CheckpointContents) -> None:
    """Assigns a checkpoint's weights, and their EMA if the state keeps one.

    Args:
      state: state whose other variables are unchanged.
      path: path of the checkpoint, for messages; the file is not opened.
      found: contents of the checkpoint.

    Raises:
      ValueError: if the checkpoint belongs to another model.
    """
    weights = {
        name: variable
        for name, variable in named_variables(state).items()
        if name.startswith(("model/", "ema/"))
    }
    check_variables(path, found.arrays, weights)
    for name, variable in weights.items():
        variable.assign(found.arrays[name])
