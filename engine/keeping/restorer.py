"""What a run goes on from: the newest of its checkpoints that is whole."""

from __future__ import annotations

import dataclasses

from engine.keeping import catalogue
from engine.keeping.archive import Archive, DamagedError
from engine.keeping.catalogue import checkpoint_number
from engine.keeping.variables import named_variables, refuse_other_variables
from engine.state import ABSENT, DROPPED, TrainState
from pipelines import Identity


class Restorer:
    """Loads a run's checkpoints into its state.

    Args:
      run_dir: holds `checkpoints/` and `best/`.
      state: what is restored.
      data: what the run learns from; None: whatever.
      writes: whether this process clears away what a killed one left; another may do it for all.
    """

    def __init__(
        self,
        run_dir: str,
        state: TrainState,
        *,
        data: Identity | None = None,
        writes: bool = True,
    ) -> None:
        self._run_dir, self._state = run_dir, state
        self._data, self._writes = data or Identity(), writes
        self._variables = named_variables(state)
        self._damaged: list[str] = []

    def newest(self) -> tuple[str | None, list[str]]:
        """Loads the newest checkpoint that is whole, and whose best one is.

        Where none has its best one any more, the newest that is whole does. Nothing is written:
        see `tidy`.

        Returns:
          Its path, None when there is none at all; and a line for each problem met on the way.

        Raises:
          OSError: when there are checkpoints and none can be loaded.
          ValueError: when they are of other data, of another network or of another version.
        """
        directory = catalogue.newest_directory(self._run_dir)
        paths, problems = catalogue.list_checkpoints(directory), list[str]()
        without_best: list[str] = []
        damaged = self._damaged = []
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
        self._assign(found)
        return path, problems

    def tidy(self) -> None:
        """Renames damaged files that `newest` met, and removes what a kill left half written."""
        if self._writes:
            catalogue.set_aside(self._damaged)
            catalogue.clear(self._run_dir)

    def same(self, number: int) -> str | None:
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

    def best_weights(self, number: int) -> None:
        """Loads the weights of a best checkpoint alone: the rest of the state stays.

        Raises:
          OSError: when it is damaged.
        """
        directory = catalogue.best_directory(self._run_dir)
        path = catalogue.checkpoint_path(directory, number)
        restore_weights(self._state, path, catalogue.read(path))

    def _read(self, path: str) -> Archive:
        """A checkpoint, if it is one of this run."""
        found = catalogue.read(path)
        if not self._data.is_that_of(Identity(**found.facts["data"])):
            raise ValueError(
                f"the data set is not the one that {path} was made with: its examples have "
                "changed; put them back, or give another --run_dir"
            )
        kept = {name: array for name, array in found.arrays.items() if name not in DROPPED}
        found = dataclasses.replace(found, arrays=ABSENT | kept)
        refuse_other_variables(path, found.arrays, self._variables)
        if found.arrays.keys() != self._variables.keys():
            strange = sorted(found.arrays.keys() - self._variables.keys())
            raise ValueError(f"{path} holds {strange[0]}, which this run does not have")
        return found

    def _assign(self, found: Archive) -> None:
        for name, variable in self._variables.items():
            variable.assign(found.arrays[name])


def restore_weights(state: TrainState, path: str, found: Archive) -> None:
    """Assigns a checkpoint's model, and its averaged weights where the state keeps them.

    Args:
      state: whose other variables stay as they are.
      path: of the checkpoint, for messages; the file is not opened.
      found: what it holds.

    Raises:
      ValueError: when it holds another model.
    """
    weights = {
        name: variable
        for name, variable in named_variables(state).items()
        if name.startswith(("model/", "average/"))
    }
    refuse_other_variables(path, found.arrays, weights)
    for name, variable in weights.items():
        variable.assign(found.arrays[name])
