"""Reads the stored examples of blocks of consecutive steps, for the streaming feed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import order
from pipelines.feeds.batch_layout import BatchPlan
from pipelines.nests import Nest
from pipelines.sequential import SequentialReader


class BlockReader:
    """Reader of the stored examples of blocks, each of consecutive steps of one replica.

    Args:
      reader: reader of a split, as `DataSplit.reader` returns it.
      plan: which examples a step has.
      crop: the `Source.crop` whose random draws are read with the examples; None: no draws.
      steps: number of steps in a block.
      chunks, chunk_size: number and size of the chunks that a block is read in.
    """

    def __init__(
        self, reader: Any, plan: BatchPlan, crop: Any, *, steps: int, chunks: int, chunk_size: int
    ) -> None:
        self._reader, self._plan, self._crop = reader, plan, crop
        self._steps, self._chunks, self._chunk_size = steps, chunks, chunk_size

    def forget(self, step: int) -> None:
        """Frees what a tf.data pipeline holds of the examples before `step`."""
        if isinstance(self._reader, SequentialReader):
            epoch, within = divmod(step, self._plan.steps_per_epoch)
            self._reader.forget(epoch, within * self._plan.global_batch_size)

    def chunks(self, step: int, replica: int) -> Iterator[Nest]:
        """Yields the stored examples of a replica's block from `step` on, chunk by chunk.

        An element is (stored examples, random draws of their crops, their fixed random numbers);
        without crops, or without fixed numbers, an empty tuple takes their place.
        """
        # The last chunk is filled up with examples from the beginning of the block.
        places = np.resize(self._places(step, replica), [self._chunks * self._chunk_size, 2])
        # Of a block at once: in a large data set, each call computes the order.
        indices = self._indices(places)
        for chunk, some in zip(
            np.split(places, self._chunks), np.split(indices, self._chunks), strict=True
        ):
            yield self._read(chunk, some)

    def _indices(self, places: np.ndarray) -> np.ndarray:
        """Returns the indices of examples by (epoch, position in the order of the epoch).

        `places` is int64 [k, 2], the indices int64 [k]. Those of a tf.data pipeline are the
        positions.
        """
        epochs, positions = places[:, 0], places[:, 1] % self._plan.examples
        if isinstance(self._reader, SequentialReader):
            return positions
        indices = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            indices[in_epoch] = self._plan.examples_at(epoch, positions[in_epoch])
        return indices

    def _read(self, places: np.ndarray, indices: np.ndarray) -> Nest:
        """Reads stored examples by (epoch, position in its order), int64 [k, 2], and `_indices`.

        Returns an element of `chunks`.
        """
        epochs, positions = places[:, 0], places[:, 1] % self._plan.examples
        seed = self._plan.seed or 0
        draws = self._crop.draws(seed, epochs, positions) if self._crop else ()
        fixed = order.fixed(seed, indices) if self._plan.include_fixed else ()
        return self._read_stored(epochs, indices), draws, fixed

    def _read_stored(self, epochs: np.ndarray, indices: np.ndarray) -> Nest:
        """Reads the stored examples with `indices`, as `_indices` returns them, of their epochs."""
        plan, reader = self._plan, self._reader
        if not isinstance(reader, SequentialReader):
            return reader.read(indices)
        # Runs of one epoch, one after the other: a pipeline gives examples in its own order.
        ends = np.flatnonzero(np.diff(epochs, append=-1)) + 1
        seed = plan.seed or 0
        parts = [
            tf.nest.flatten(reader.read_epoch(seed, int(epochs[start]), indices[start:end]))
            for start, end in zip([0, *ends], ends, strict=False)
        ]
        leaves = [np.concatenate(leaf) for leaf in zip(*parts, strict=True)]
        return tf.nest.pack_sequence_as(reader.spec, leaves)

    def _places(self, first: int, replica: int) -> np.ndarray:
        """Returns (epoch, position) of the examples of a replica's block of steps, int64 [k, 2].

        The block has `self._steps` steps from step `first`. The rows are in the order of steps,
        then of local micro-batches. Positions are as in `BatchPlan.positions`.
        """
        plan = self._plan
        steps = np.arange(first, first + self._steps)[:, None, None]
        micro_batches = np.arange(plan.layout.local_micro_batches)[:, None]
        _, positions, _ = plan.positions(steps, replica, micro_batches, np.arange(plan.fetched))
        epochs = np.broadcast_to(steps // plan.steps_per_epoch, positions.shape)
        return np.stack([epochs.ravel(), positions.ravel()], axis=1)
