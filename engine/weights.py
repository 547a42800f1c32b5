"""A run that was trained, put together again with weights that it saved."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from engine.assembly import Parts, assemble
from engine.config import Config
from engine.keeping import catalogue, run_directory
from engine.keeping.catalogue import Snapshot
from engine.keeping.restorer import restore_weights


class Chosen(NamedTuple):
    """The checkpoint that `--weights` asks for, in memory.

    kind: "newest" or "best".
    snapshot: the checkpoint; its file may be gone.
    """

    kind: str
    snapshot: Snapshot

    @property
    def words(self) -> str:
        """Which weights it holds, for a person."""
        return f"the {self.kind} weights, of step {self.snapshot.step:,}"


class Restored(NamedTuple):
    """Weights that were saved, in the network that they are of.

    parts: of the run; only the weights of its state are restored.
    path: where the checkpoint was when it was read; a training may have pruned it.
    words: which weights they are, for a person.
    """

    parts: Parts
    path: str
    words: str


def choose(config: Config) -> Chosen:
    """Reads the checkpoint that `--weights` asks for, also beside a training.

    Everything that follows uses what is in memory: while a run is put together, which takes
    seconds, a training that goes on may prune the file.

    Args:
      config: the run's options. With `--weights=auto` and `--restore_best` these are the best
        weights, or the newest where no epoch has been judged yet, as at the end of a training.

    Raises:
      ValueError: when the run has no such weights.
      OSError: when the checkpoint is damaged.
    """
    run_dir, asked = config.run.run_dir, config.run.weights
    if asked == "best" or (asked == "auto" and config.stopping.restore_best):
        best = catalogue.load_best(run_dir)
        if best is not None:
            return Chosen("best", best)
        if asked == "best" and run_directory.has_checkpoint(run_dir):
            raise ValueError(
                f"--weights=best: {run_dir} has no best checkpoint yet, because no epoch has been "
                "judged; wait for the end of an epoch, or give --weights=newest"
            )
    newest = catalogue.load_newest(run_dir)
    if newest is None:
        raise ValueError(f"--weights={asked}: {run_dir} has no checkpoint yet; train first")
    return Chosen("newest", newest)


def restored(config: Config, chosen: Chosen | None = None) -> Restored:
    """Puts a run together on one machine, with the weights that `--weights` asks for.

    Args:
      config: the run's options.
      chosen: what `choose` gave; None: it is asked.

    Raises:
      ValueError: when the run has no such weights, or they are of another network or data set.
      OSError: when the checkpoint is damaged.
    """
    chosen = chosen or choose(config)
    run_directory.refuse_another_network(config)
    if config.training.strategy == "multi_worker":  # one machine is enough
        alone = dataclasses.replace(config.training, strategy="auto")
        config = dataclasses.replace(config, training=alone)
    parts = assemble(config)
    _refuse_other_data(parts, chosen.snapshot)
    restore_weights(parts.state, chosen.snapshot.path, chosen.snapshot.archive)
    return Restored(parts, chosen.snapshot.path, chosen.words)


def _refuse_other_data(parts: Parts, snapshot: Snapshot) -> None:
    """A data set of other images or classes than the weights were trained on is bad input."""
    config = parts.config
    before = run_directory.options_of(config.run.run_dir)
    assert before is not None, "a run has options"
    if (config.data.dataset, config.data.image_size) == (
        before.data.dataset,
        before.data.image_size,
    ):
        return
    arrays = snapshot.archive.arrays
    shapes = {array.shape for name, array in arrays.items() if name.startswith("model/")}
    if not {tuple(variable.shape) for variable in parts.model.variables} <= shapes:
        raise ValueError(
            f"--dataset={config.data.dataset} (was {before.data.dataset}): its images or classes "
            f"are not those that the weights in {config.run.run_dir} were trained on"
        )
