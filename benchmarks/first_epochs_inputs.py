"""Writes what a peer needs to train as the engine does: weights, order, crops and flips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import pipelines
from benchmarks.real.engine_weights import weights_of
from engine.assembly import data, factories
from engine.config import flags
from engine.config.schema import Config
from engine.models.stateless_random import StatelessRNG
from pipelines import permutation, steps_per_epoch

_AUGMENTATION_STREAM = -1  # of random numbers, as in the engine


def write(options: Sequence[str], path: Path) -> None:
    """Writes the inputs of a training run of a `models.Sequential` on images.

    Args:
      options: command-line options of the run, with crops padded with zeros and horizontal flips,
        and the scale "standardize"; its validation split is what the peer tests on.
      path: .npz file to write. "images", uint8 [n, height, width, channels], and "labels", int64
        [n], of the training split, and "test_images" and "test_labels" of the validation split;
        "mean" and "deviation", float32 [channels]; "weight_000", "weight_001", ..., the initial
        weights in the order of the layers; for each epoch, "orders", the index of the example at
        each position, int32 [epochs, n], and "moves", uint8 [epochs, n, 3], of the example at each
        position: see `benchmarks.moves`.

    Raises:
      ValueError: if the options or the data set are invalid.
    """
    config = flags.parse(list(options))
    cache = data.cache_dir(config)
    source = pipelines.fitted(data.open_source(config), cache)
    (scale,) = source.preprocess.scales.values()
    arrays = {"mean": np.float32(scale.mean), "deviation": np.float32(scale.deviation)}
    for prefix, split in (("", source.train), ("test_", source.splits["validation"])):
        read = pipelines.read_examples(source, split, np.arange(len(split)), cache)
        arrays[f"{prefix}images"] = read.inputs
        arrays[f"{prefix}labels"] = read.targets.astype(np.int64)
    model = factories.build_network(config, source, factories.build_task(config, source))
    for place, (variable,) in enumerate(weights_of(model)):
        arrays[f"weight_{place:03}"] = variable.numpy()
    arrays["orders"], arrays["moves"] = order_and_moves(config, len(source.train))
    np.savez(path, **arrays)


def order_and_moves(config: Config, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns "orders" and "moves" of `write` for the epochs that a run's steps begin.

    Args:
      config: options of the run.
      examples: number of examples of the training split.
    """
    seed, batch = config.run.seed, config.training.global_batch_size
    epochs = -(-config.training.train_steps // steps_per_epoch(examples, batch))
    orders, moves = [], []
    for epoch in range(epochs):
        orders.append(permutation(seed, epoch, examples))
        numbers = StatelessRNG(seed, epoch).uniform(_AUGMENTATION_STREAM, examples, 3).numpy()
        offsets = np.floor(numbers[:, :2] * np.float32(2 * padding(config) + 1))
        moves.append(np.column_stack([offsets, numbers[:, 2] >= 0.5]).astype(np.uint8))
    return np.stack(orders), np.stack(moves)


def padding(config: Config) -> int:
    """Returns the padding of crops in pixels.

    Raises:
      ValueError: if there are no such crops and flips.
    """
    found = re.fullmatch(r"crop:(\d+):zeros,flip", config.data.augment)
    if found is None:
        raise ValueError(f"--augment={config.data.augment}: crop:PADDING:zeros,flip is wanted")
    return int(found[1])
