"""Trained runs, rebuilt from their options with saved weights."""

from __future__ import annotations

from typing import NamedTuple

from engine.assembly import run_directory
from engine.assembly.parts import Parts, assemble
from engine.checkpoint import catalog
from engine.checkpoint.catalog import LoadedCheckpoint
from engine.checkpoint.restore import restore_weights
from engine.config.option import written
from engine.config.schema import Config, changed, replaced


class SelectedCheckpoint(NamedTuple):
    """The checkpoint that `--weights` selects, loaded into memory: its file may be deleted."""

    kind: str  # "newest" or "best"
    snapshot: LoadedCheckpoint

    @property
    def description(self) -> str:
        """Description of the weights, for display."""
        return f"the {self.kind} weights, of step {self.snapshot.step:,}"


class RestoredRun(NamedTuple):
    """An assembled run with restored weights; a context manager that closes its feeds on exit.

    Only the model's weights and their EMA are restored.
    """

    parts: Parts
    path: str  # of the checkpoint; a concurrent training process may have deleted the file
    description: str  # description of the weights, for display

    def __enter__(self) -> RestoredRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.parts.close()


def choose(config: Config) -> SelectedCheckpoint:
    """Loads the checkpoint that `--weights` selects, even while the run is training.

    With `--restore_best`, `--weights=auto` selects the best weights, or the newest if there is no
    best checkpoint yet; training does so at its end. A run without such weights, or with a
    checkpoint in an unknown format, is a ValueError; a damaged checkpoint is an OSError.
    """
    run_dir, kind = config.run.run_dir, config.run.weights
    if kind == "best" or (kind == "auto" and config.stopping.restore_best):
        best = catalog.load_best(run_dir)
        if best is not None:
            return SelectedCheckpoint("best", best)
        if kind == "best" and run_directory.has_checkpoint(run_dir):
            raise ValueError(
                f"--weights=best: {run_dir} has no best checkpoint yet, because no epoch has been "
                "judged; wait for the end of an epoch, or give --weights=newest"
            )
    newest = catalog.load_newest(run_dir)
    if newest is None:
        raise ValueError(f"--weights={kind}: {run_dir} has no checkpoint yet; train first")
    return SelectedCheckpoint("newest", newest)


def restored(config: Config, chosen: SelectedCheckpoint | None = None) -> RestoredRun:
    """Assembles a run on one machine and restores weights, by default those that `choose` selects.

    Weights of another network or data set are a ValueError; also raises as `choose`, `assemble`.
    """
    chosen = chosen or choose(config)
    before = run_directory.read_options(config.run.run_dir)
    assert before is not None, "a run has options"
    _refuse_other_network(config, before)
    if config.devices.strategy == "multi_worker":  # one machine is enough
        config = replaced(config, strategy="auto")
    parts = assemble(config)
    _refuse_other_data(parts, before, chosen.snapshot)
    restore_weights(parts.state, chosen.snapshot.path, chosen.snapshot.archive)
    return RestoredRun(parts, chosen.snapshot.path, chosen.description)


def _refuse_other_network(config: Config, before: Config) -> None:
    differences = [
        f"--{name}={written(now)} (is {written(old)})"
        for name, old, now in changed(before, config, "trajectory")
        if hasattr(config.model, name) or name.startswith("model.")
    ]
    if differences:
        raise ValueError(f"{config.run.run_dir} holds another network: {', '.join(differences)}")


def _refuse_other_data(parts: Parts, before: Config, snapshot: LoadedCheckpoint) -> None:
    """Raises ValueError if the data set or image size does not fit the shapes of the weights."""
    data = parts.config.data
    if (data.dataset, data.image_size) == (before.data.dataset, before.data.image_size):
        return
    arrays = snapshot.archive.arrays
    shapes = {array.shape for name, array in arrays.items() if name.startswith("model/")}
    if not {tuple(variable.shape) for variable in parts.model.variables} <= shapes:
        raise ValueError(
            f"--dataset={data.dataset} (was {before.data.dataset}): its images or classes are not "
            f"those that the weights in {parts.config.run.run_dir} were trained on"
        )
