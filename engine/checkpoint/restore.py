"""Restores a run from the newest of its checkpoints that is intact."""

from __future__ import annotations

from engine.checkpoint import catalog
from engine.checkpoint.catalog import checkpoint_number
from engine.checkpoint.checkpoint_file import CheckpointContents, DamagedError
from engine.checkpoint.variables import check_variables, named_variables
from engine.core.state import TrainState
from pipelines import DataIdentity


class Restorer:
    """Loads a run's checkpoints into its state.

    Args:
      run_dir: run directory, which holds `checkpoints/` and `best/`.
      state: the state to restore.
      data: identity of the training data; None: an empty one.
      writes: whether this process cleans up after a killed one; one worker may do so for all.
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
        """Loads the newest intact checkpoint whose best checkpoint is intact, too.

        If none has an intact best checkpoint, loads the newest intact one. Writes nothing: see
        `tidy`.

        Returns:
          Its path, None if there is no checkpoint; and a line for each problem found.

        Raises:
          OSError: if there are checkpoints and none can be loaded.
          ValueError: if they belong to other data, another network or another version.
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
        """Renames damaged files that `newest` found, and removes files that a kill left partial."""
        if self._writes:
            catalog.rename_damaged(self._damaged)
            catalog.clear(self._run_dir)

    def same(self, number: int) -> str | None:
        """Loads the checkpoint that another process chose, by its number; 0: none.

        Raises:
          OSError: if it cannot be loaded here.
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
        """Loads only the weights of a best checkpoint; the rest of the state is unchanged.

        Raises:
          OSError: if it is damaged.
        """
        directory = catalog.best_directory(self._run_dir)
        path = catalog.checkpoint_path(directory, number)
        restore_weights(self._state, path, catalog.read(path))

    def _read(self, path: str) -> CheckpointContents:
        """Reads a checkpoint and checks that it belongs to this run."""
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
      ValueError: if it holds another model.
    """
    weights = {
        name: variable
        for name, variable in named_variables(state).items()
        if name.startswith(("model/", "ema/"))
    }
    check_variables(path, found.arrays, weights)
    for name, variable in weights.items():
        variable.assign(found.arrays[name])
