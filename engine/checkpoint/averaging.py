"""Loads the average of the weights of a run's best checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from engine.checkpoint import catalog
from engine.checkpoint.catalog import LoadedCheckpoint
from engine.checkpoint.checkpoint_file import CheckpointContents, DamagedError

_WEIGHTS = ("model/", "ema/")


class LoadedAverage(NamedTuple):
    """The average of checkpoints: their steps, and the averaged weights as a checkpoint."""

    steps: list[int]  # of the best evaluations, the best one first
    checkpoint: LoadedCheckpoint  # its path is that of best/, its metadata those of the best one


def load_average(run_dir: str, count: int) -> LoadedAverage:
    """Reads the `count` best checkpoints of a run, and averages their weights and their EMA.

    The newest checkpoint contains the steps of the best ones. If a training process prunes one of
    them meanwhile, the newest one, which then contains other steps, is read again. The checkpoints
    are read one after the other, so memory does not grow with their number.

    Args:
      run_dir: run directory.
      count: number of checkpoints, 1 or more.

    Raises:
      ValueError: if the run has fewer best checkpoints, or if this version of Tapeline cannot read
        the format of one of them.
      DamagedError: if a checkpoint is damaged or missing.
    """
    previous = None
    while (newest := catalog.load_newest(run_dir)) is not None:
        path, steps = newest.path, newest.best_steps[:count]
        if len(steps) < count:
            raise ValueError(_too_few(run_dir, count, steps))
        del newest  # its arrays take memory
        try:
            checkpoints = (catalog.read_best(run_dir, step, path) for step in steps)
            facts, arrays = average(each.archive for each in checkpoints)
            contents = CheckpointContents(facts, arrays)
            return LoadedAverage(steps, LoadedCheckpoint(catalog.best_directory(run_dir), contents))
        except DamagedError:
            if path == previous:
                raise
        previous = path
    raise ValueError(f"--weights=average:{count}: {run_dir} has no checkpoint yet; train first")


def average(checkpoints: Iterable[CheckpointContents]) -> CheckpointContents:
    """Returns the average of the weights of checkpoints, with the metadata of the first one.

    The result has only the arrays of the model and of its EMA. Arrays of floats are added in
    float64 and rounded once to their dtype; others, such as integers, are those of the first
    checkpoint.
    """
    sums: dict[str, np.ndarray] = {}
    arrays: dict[str, np.ndarray] = {}
    facts, count = {}, 0
    for count, contents in enumerate(checkpoints, 1):
        if count == 1:
            facts = contents.facts
            arrays = {n: each for n, each in contents.arrays.items() if n.startswith(_WEIGHTS)}
        for name, array in arrays.items():
            if not np.issubdtype(array.dtype, np.floating):
                continue
            if name not in sums:
                sums[name] = np.zeros(array.shape)
            sums[name] += contents.arrays[name]
    means = {name: (each / count).astype(arrays[name].dtype) for name, each in sums.items()}
    return CheckpointContents(facts, arrays | means)


def _too_few(run_dir: str, count: int, steps: list[int]) -> str:
    """Returns an error message: the run has only the best checkpoints of `steps`, not `count`."""
    if not steps:
        return (
            f"--weights=average:{count}: {run_dir} has no best checkpoint yet, because nothing has "
            "been evaluated; wait for an evaluation, or give --weights=newest"
        )
    listed = ", ".join(map(str, steps))
    return (
        f"--weights=average:{count}: {run_dir} keeps {len(steps)} of the best checkpoints, of step "
        f"{listed}; give --weights=average:{len(steps)}, or train with --keep_best={count}"
    )
