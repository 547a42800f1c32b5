"""Examples -> batches: which ones step t sees, where, and how they get there.

Two feeds keep the same law (L4): the examples of a step are a pure function of (seed, step).
`Resident` holds all examples, decoded, where the loop runs and gathers each batch in the graph.
`Stream` reads and decodes them through tf.data as it goes. A run gives the same bits with either.

One global batch is `global_batch_size` consecutive places of the epoch's order; replica r of N
holds an equal portion of them. Places past the epoch's end, or past the global batch where N does
not divide it, are padding: a mask of zero, so that they weigh nothing (L1).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from pipelines import cache, order
from pipelines.records import RecordReader, damaged
from pipelines.source import Records, Source


class Batch(NamedTuple):
    """One replica's portion of a global batch."""

    inputs: tf.Tensor  # uint8 [rows, H, W, C]
    targets: tf.Tensor  # int32 [rows]
    mask: tf.Tensor  # float32 [rows]: 1 an example, 0 padding
    row: tf.Tensor  # int64 []: place of the first row in the global batch
    valid: tf.Tensor  # float32 []: examples in the global batch, over all replicas


class Feed(Protocol):
    """What the loop needs of a feed; implement it to bring another source of batches."""

    examples: int
    steps_per_epoch: int

    def open(self, step: int, steps: int) -> Any:
        """On the host: what the graph needs for `steps` steps from `step`, all in one epoch."""

    def next(self, opened: Any) -> Any:
        """In the graph, across replicas: what `batch` needs for one more step."""

    def batch(self, element: Any, step: tf.Tensor, replica: tf.Tensor | int) -> Batch:
        """In the graph, on a replica: its portion of the global batch of `step` (int64 [])."""


class Plan:
    """The arithmetic that both feeds share: step -> places -> examples.

    Args:
      examples: of the split, n.
      global_batch_size: examples of one full step, over all replicas.
      replicas: devices that share a global batch.
      seed: of the order; None: file order, every epoch (evaluation).
    """

    def __init__(
        self, *, examples: int, global_batch_size: int, replicas: int, seed: int | None
    ) -> None:
        self.examples = examples
        self.global_batch_size = global_batch_size
        self.rows = -(-global_batch_size // replicas)
        self.replicas = replicas
        self.steps_per_epoch = order.steps_per_epoch(examples, global_batch_size)
        self._seed = seed

    def order(self, epoch: int) -> np.ndarray:
        """The order of an epoch, int32 [n]."""
        if self._seed is None:
            return np.arange(self.examples, dtype=np.int32)
        return order.permutation(self._seed, epoch, self.examples)

    def places(self, step: Any, replica: Any, arange: Any) -> Any:
        """(place of the first row in the global batch, place of each row in the epoch, valid).

        Integer arithmetic only, so the same lines serve NumPy on the host and tensors in the
        graph. `valid` is boolean [rows].
        """
        first = replica * self.rows
        in_batch = first + arange
        in_epoch = step % self.steps_per_epoch * self.global_batch_size + in_batch
        return first, in_epoch, (in_batch < self.global_batch_size) & (in_epoch < self.examples)

    def masked(self, inputs: tf.Tensor, targets: tf.Tensor, step: tf.Tensor, replica: Any) -> Batch:
        """A Batch of rows that were fetched for `step` and `replica`."""
        replica = tf.cast(replica, tf.int64)
        first, _, valid = self.places(step, replica, tf.range(self.rows, dtype=tf.int64))
        left = self.examples - step % self.steps_per_epoch * self.global_batch_size
        return Batch(
            inputs,
            targets,
            tf.cast(valid, tf.float32),
            first,
            tf.cast(tf.minimum(left, self.global_batch_size), tf.float32),
        )


class Resident:
    """All examples in memory on every device, decoded; batches are gathered in the graph.

    Args:
      images: uint8 [n, H, W, C].
      labels: int32 [n].
      plan: which examples a step sees.
      strategy: whose devices hold the examples.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, plan: Plan, strategy: tf.distribute.Strategy
    ) -> None:
        self.examples, self.steps_per_epoch = plan.examples, plan.steps_per_epoch
        self._plan = plan
        self._opened: tuple[int, tf.Tensor] | None = None
        self._data: Any
        if strategy.num_replicas_in_sync == 1:
            self._data = tf.constant(images), tf.constant(labels)
        else:
            devices = strategy.extended.worker_devices

            def copy(context: tf.distribute.ReplicaContext) -> tuple[tf.Tensor, tf.Tensor]:
                with tf.device(devices[int(context.replica_id_in_sync_group)]):
                    return tf.constant(images), tf.constant(labels)

            self._data = strategy.experimental_distribute_values_from_function(copy)

    def open(self, step: int, steps: int) -> tf.Tensor:
        """The epoch's order, int32 [n]."""
        del steps
        epoch = step // self.steps_per_epoch
        if self._opened is None or self._opened[0] != epoch:
            self._opened = epoch, tf.constant(self._plan.order(epoch))
        return self._opened[1]

    def next(self, opened: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """The order, and each replica's copy of the examples."""
        return opened, self._data

    def batch(self, element: Any, step: tf.Tensor, replica: tf.Tensor | int) -> Batch:
        """Gathers the replica's rows."""
        in_order, (images, labels) = element
        arange = tf.range(self._plan.rows, dtype=tf.int64)
        _, places, _ = self._plan.places(step, tf.cast(replica, tf.int64), arange)
        chosen = tf.gather(in_order, tf.minimum(places, self.examples - 1))
        return self._plan.masked(
            tf.gather(images, chosen), tf.gather(labels, chosen), step, replica
        )


class Stream:
    """Examples read and decoded by tf.data while the loop runs.

    Args:
      source: how an example is decoded.
      records: which examples.
      plan: which of them a step sees.
      strategy: whose replicas are fed.
    """

    def __init__(
        self, source: Source, records: Records, plan: Plan, strategy: tf.distribute.Strategy
    ) -> None:
        self.examples, self.steps_per_epoch = plan.examples, plan.steps_per_epoch
        self._plan, self._strategy = plan, strategy
        self._reader = RecordReader(records.ranges)
        self._source = source
        self._iterator: Any = None
        self._at = -1

    def open(self, step: int, steps: int) -> Any:
        """An iterator that stands at `step`; the running one if it does, else a new one."""
        if self._iterator is None or self._at != step:
            if self._strategy.num_replicas_in_sync == 1:
                self._iterator = iter(self._dataset(step))
            else:
                self._iterator = iter(
                    self._strategy.distribute_datasets_from_function(lambda _: self._dataset(step))
                )
        self._at = step + steps
        return self._iterator

    def _dataset(self, step: int) -> tf.data.Dataset:
        """Every replica's rows of `step`, then of the next step, without an end."""
        plan = self._plan
        arange = np.arange(plan.rows)

        def read(turn: np.int64) -> np.ndarray:
            at, replica = divmod(int(turn), plan.replicas)
            _, places, _ = plan.places(at, replica, arange)
            chosen = plan.order(at // plan.steps_per_epoch)[np.minimum(places, plan.examples - 1)]
            return self._reader.read(chosen)

        def decode(turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            serialized = tf.numpy_function(read, [turn], tf.string, stateful=False)
            return decode_batch(self._source, tf.ensure_shape(serialized, [plan.rows]))

        # A whole portion is decoded by one thread, portions side by side: half the cost of
        # mapping example by example and batching after.
        return (
            tf.data.Dataset.counter(step * plan.replicas, 1)
            .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .prefetch(tf.data.AUTOTUNE)
        )

    def next(self, opened: Any) -> Any:
        """The next portion of every replica."""
        return next(opened)

    def batch(self, element: Any, step: tf.Tensor, replica: tf.Tensor | int) -> Batch:
        """The portion with its mask."""
        images, labels = element
        return self._plan.masked(images, labels, step, replica)


def decode_batch(source: Source, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes serialized examples, string [k], to (uint8 [k, H, W, C], int32 [k]), in the graph."""
    signature = (
        tf.TensorSpec(source.image_shape, tf.uint8),
        tf.TensorSpec([], tf.int32),
    )
    return tf.map_fn(source.decode, serialized, fn_output_signature=signature)


def decode_all(
    source: Source, records: Records, progress: Callable[[int], None] = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a whole split: (images uint8 [n, H, W, C], labels int32 [n]).

    Args:
      source: how an example is decoded.
      records: which examples.
      progress: told how many more examples are done, now and then.

    Raises:
      ValueError: when an example cannot be decoded.
    """
    reader = RecordReader(records.ranges)
    images = np.empty((len(records), *source.image_shape), np.uint8)
    labels = np.empty(len(records), np.int32)
    portion = 256

    def decode(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def read(at: np.int64) -> np.ndarray:
            return reader.read(np.arange(at, min(at + portion, len(reader))))

        serialized = tf.numpy_function(read, [start], tf.string, stateful=False)
        return decode_batch(source, tf.ensure_shape(serialized, [None]))

    dataset = tf.data.Dataset.range(0, len(reader), portion).map(
        decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    done = 0
    try:
        for some_images, some_labels in dataset.as_numpy_iterator():
            stop = done + len(some_labels)
            images[done:stop], labels[done:stop] = some_images, some_labels
            progress(stop - done)
            done = stop
    except tf.errors.OpError as error:
        where = f"{source.name}, {records.name}, near example {done}"
        raise ValueError(damaged(where, error)) from None
    return images, labels


def choose_feed(kind: str, source: Source) -> tuple[str, int]:
    """What `--feed` means, and the bytes that the decoded splits take on each device.

    Args:
      kind: auto, resident or stream; auto is resident when the splits take no more than 2 GiB and
        a quarter of the free memory.
      source: the data set, with its splits.
    """
    splits = (source.train, source.validation, source.test)
    per_example = int(np.prod(source.image_shape)) + 4
    needed = sum(len(split) * per_example for split in splits if split is not None)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if kind == "auto":
        kind = "resident" if needed <= min(2 << 30, free // 4) else "stream"
    return kind, needed


def open_feed(
    kind: str,
    source: Source,
    records: Records,
    *,
    global_batch_size: int,
    seed: int | None,
    strategy: tf.distribute.Strategy,
    cache_dir: str,
    progress: Callable[[int], None] = lambda done: None,
) -> Resident | Stream:
    """Makes the feed of a split.

    Args:
      kind: "resident" or "stream".
      source: the data set.
      records: the split.
      global_batch_size: examples of one full step, over all replicas.
      seed: of the order of each epoch; None: file order.
      strategy: whose devices are fed.
      cache_dir: where decoded examples are kept between starts.
      progress: told how many more examples are decoded, now and then.

    Raises:
      ValueError: when the data is missing or damaged.
    """
    plan = Plan(
        examples=len(records),
        global_batch_size=global_batch_size,
        replicas=strategy.num_replicas_in_sync,
        seed=seed,
    )
    if kind == "stream":
        return Stream(source, records, plan, strategy)
    name = cache.key(records.ranges, source.recipe)
    decoded = cache.load(cache_dir, name)
    if decoded is None:
        decoded = decode_all(source, records, progress)
        cache.store(cache_dir, name, *decoded)
    return Resident(*decoded, plan, strategy)
