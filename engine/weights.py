"""A run that was trained, put together again with weights that it saved."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from engine.assembly import Parts, assemble
from engine.config import Config
from engine.keeping import catalogue, run_directory
from engine.keeping.restorer import restore_weights


class Restored(NamedTuple):
    """Weights that were saved, in the network that they are of.

    parts: of the run; only the weights of its state are restored.
    path: of the checkpoint.
    words: which weights they are, for a person.
    """

    parts: Parts
    path: str
    words: str


def restored(config: Config) -> Restored:
    """Loads the weights that `--weights` asks for, on one machine.

    Args:
      config: the run's options.

    Raises:
      ValueError: when the run has no such weights, or they are of another network or data set.
      OSError: when the checkpoint is damaged.
    """
    run_dir, kind = config.run.run_dir, config.run.weights
    if kind == "auto":
        kind = "best" if config.stopping.restore_best else "newest"
    path = catalogue.best_of(run_dir) if kind == "best" else catalogue.newest_of(run_dir)
    if path is None:
        raise ValueError(f"--weights={kind}: {run_dir} has no such checkpoint yet; train first")
    run_directory.refuse_another_network(config)
    if config.training.strategy == "multi_worker":  # one machine is enough
        alone = dataclasses.replace(config.training, strategy="auto")
        config = dataclasses.replace(config, training=alone)
    parts = assemble(config)
    _refuse_other_data(parts, path)
    restore_weights(parts.state, path)
    step = catalogue.read_facts(path)["step"]
    return Restored(parts, path, f"the {kind} weights, of step {step:,}")


def _refuse_other_data(parts: Parts, path: str) -> None:
    """A data set of other images or classes than the weights were trained on is bad input."""
    config = parts.config
    before = run_directory.options_of(config.run.run_dir)
    assert before is not None, "a run has options"
    if (config.data.dataset, config.data.image_size) == (
        before.data.dataset,
        before.data.image_size,
    ):
        return
    arrays = catalogue.read_facts(path)["arrays"]
    shapes = {tuple(a["shape"]) for name, a in arrays.items() if name.startswith("model/")}
    if not {tuple(variable.shape) for variable in parts.model.variables} <= shapes:
        raise ValueError(
            f"--dataset={config.data.dataset} (was {before.data.dataset}): its images or classes "
            f"are not those that the weights in {config.run.run_dir} were trained on"
        )
