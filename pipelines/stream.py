"""The streaming feed: reads and decodes examples while the training loop runs.

A thread reads stored examples and enqueues them in chunks. A tf.data pipeline dequeues the chunks,
decodes them in parallel and batches them into tables of decoded examples; a table has the examples
of one or more consecutive steps. No Python runs inside the pipeline: TensorFlow destroys a pipeline
while it holds the GIL, so a pipeline that waits for Python would deadlock. The loop receives a
table, not the pipeline, so XLA can compile the loop. It is as fast as with the in-memory feed if
decoding keeps up.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.batch_layout import Batch, BatchPlan, OpenedSteps
from pipelines.decode import (
    DECODE_CHUNK,
    as_it_is,
    decode_batch,
    decode_images,
    options_without_autotune,
)
from pipelines.host import usable_cores
from pipelines.records import RecordReader
from pipelines.replicas import local_replicas, per_replica_values
from pipelines.source import DataSplit, Source

_TABLE = 4 << 20  # approximate maximum bytes of a table, which has at least one step
_PORTION = 128  # maximum number of examples in a chunk, which is decoded by one parallel call
_LARGE = 1 << 14  # number of examples of a split from which a chunk is decoded without a loop
_QUEUED = 16  # capacity of the queue in chunks; a few suffice, because reading is cheap
_READY = 1  # tables of decoded examples to prefetch for each replica, besides the one in progress

_streams: weakref.WeakSet[StreamingFeed] = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    """Closes all streaming feeds and stops their reader threads, before the interpreter exits."""
    for stream in list(_streams):
        stream.close()


class StreamingFeed:
    """Reads and decodes examples during training, ahead of their use.

    Args:
      source: the data set, which decodes the examples.
      records: the split.
      plan: plan that maps a step to its examples.
      strategy: distribution strategy whose replicas receive the examples.
      cache_dir: directory where the record index is cached.
      progress: called periodically with the number of examples indexed since the last call.
    """

    def __init__(
        self,
        source: Source,
        records: DataSplit,
        plan: BatchPlan,
        strategy: tf.distribute.Strategy,
        cache_dir: str,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.examples, self.steps_per_epoch = plan.examples, plan.steps_per_epoch
        self._plan, self._strategy, self._source = plan, strategy, source
        self.layout = plan.layout
        self._iterator: Any = None
        self._queue: Any = None
        self._thread: threading.Thread | None = None
        fields = source.pictures.fields if source.pictures else None
        self._reader = RecordReader(records.ranges, fields, cache_dir, progress)
        # Number of steps in a table, and number and size of the chunks that it is decoded in.
        self._of_step = plan.layout.local_micro_batches * plan.fetched
        pixels = int(np.prod(source.image_shape)) * np.dtype(source.dtype).itemsize
        fitting = max(1, _TABLE // (self._of_step * pixels))
        self._steps = min(fitting, plan.steps_per_epoch)
        self._portions = -(-self._steps * self._of_step // _PORTION)
        self._of_portion = -(-self._steps * self._of_step // self._portions)
        self._chunk = self._of_portion if len(records) >= _LARGE else DECODE_CHUNK
        self._table: Any = None
        self._first = 0  # first step of the table of decoded examples
        _streams.add(self)

    def open(self, step: int, steps: int) -> OpenedSteps:
        """Returns the input of the next steps, at most to the end of the current table.

        `given` is (offset, per-replica table of decoded examples); step + offset is a step's index
        in the table.
        """
        at = step
        if self._plan.in_file_order:  # all epochs are alike: continue from the current table
            at = self._first + (step - self._first) % self.steps_per_epoch
        first = at - at % self._steps
        if self._table is None or first != self._first:
            follows = self._table is not None and first == self._first + self._steps
            self._table = None  # remains None if the next one cannot be made
            if not follows:
                self.close()
                first = step - step % self._steps
                at = step
                self._start(first)
            self._table = per_replica_values(self._strategy, lambda: next(self._iterator))
            self._first = first
        left = first + self._steps - at
        return OpenedSteps(
            min(steps, left), (tf.constant(at - step - first, tf.int64), self._table)
        )

    @property
    def ahead(self) -> int:
        """Maximum number of steps whose examples are decoded, or being decoded, at any time."""
        return self._steps * (_READY + 3)  # plus the current table and two in progress

    def close(self) -> None:
        """Stops prefetching and the reader thread; `open` restarts them."""
        if self._thread is not None:
            self._queue.close(cancel_pending_enqueues=True)
            self._thread.join()
        self._iterator = self._queue = self._thread = self._table = None

    def next(self, given: Any) -> Any:
        """Returns `given` unchanged, the same for all steps of a table of decoded examples."""
        return given

    def batch(
        self,
        element: Any,
        step: tf.Tensor,
        replica: tf.Tensor | int,
        micro_batch: tf.Tensor | int = 0,
    ) -> Batch:
        """Gathers the examples of a local micro-batch.

        They are contiguous, but a slice is not used: XLA treats its start as a constant where it
        can, and would recompile the loop for every table of decoded examples.
        """
        shift, (images, labels) = element
        rows, at = self._plan.fetched, tf.cast(micro_batch, tf.int64)
        first = ((step + shift) * self.layout.local_micro_batches + at) * rows
        chosen = first + tf.range(rows, dtype=tf.int64)
        images, labels = tf.gather(images, chosen), tf.gather(labels, chosen)
        return self._plan.masked(images, labels, step, replica, micro_batch)

    def _start(self, step: int) -> None:
        here = local_replicas(self._strategy)
        size, portions = self._of_portion, self._portions
        with tf.device("CPU:0"):
            queue = tf.queue.FIFOQueue(_QUEUED, [tf.string, tf.int32], [[size], [size]])

            # One parallel call decodes a whole chunk. This takes a quarter of the time of mapping
            # single examples and batching them afterwards.
            self._iterator = iter(
                tf.data.Dataset.counter()
                .map(as_it_is(lambda _: queue.dequeue()))
                .map(as_it_is(self._decode), num_parallel_calls=usable_cores(), deterministic=True)
                .batch(portions, drop_remainder=True)
                .map(as_it_is(lambda *parts: tuple(map(_in_one, parts))))
                .prefetch(_READY * len(here))
                .with_options(options_without_autotune())
            )
        self._queue = queue
        self._thread = threading.Thread(
            target=self._fill, args=(queue, here, step), daemon=True, name="read-ahead"
        )
        self._thread.start()

    def _decode(self, stored: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if self._source.pictures is None:
            return decode_batch(self._source, stored, self._chunk)
        return decode_images(self._source, stored, self._chunk), labels

    def _fill(self, queue: tf.queue.FIFOQueue, replicas: range, step: int) -> None:
        """Enqueues each replica's stored examples, table by table, until the queue is closed."""
        count = self._portions * self._of_portion
        try:
            while True:
                for replica in replicas:
                    # The last chunk is filled up with examples from the beginning of the table.
                    numbers = np.resize(self._rows(step, replica), count)
                    for some in np.split(numbers, self._portions):
                        stored, labels = self._reader.read(some)
                        with tf.device("CPU:0"):
                            queue.enqueue([tf.constant(stored), tf.constant(labels)])
                step += self._steps
        except (tf.errors.CancelledError, tf.errors.AbortedError):
            return  # the feed was closed
        except BaseException:
            queue.close()  # reading failed: the pipeline must not wait forever
            raise

    def _rows(self, first: int, replica: int) -> np.ndarray:
        """Returns the example indices of a replica's table of decoded examples, int [k]."""
        plan = self._plan
        steps = np.arange(first, first + self._steps)
        of_each = np.arange(plan.layout.local_micro_batches)[:, None], np.arange(plan.fetched)
        _, places, _ = plan.places(steps[:, None, None], replica, *of_each)
        epochs = np.broadcast_to(steps[:, None, None] // plan.steps_per_epoch, places.shape)
        found = np.empty(places.shape, np.int64)
        for epoch in np.unique(epochs):
            found[epochs == epoch] = plan.chosen(epoch, places[epochs == epoch] % plan.examples)
        return found.ravel()


def _in_one(portions: tf.Tensor) -> tf.Tensor:
    """Concatenates chunks: [p, k, ...] -> [p k, ...]."""
    return tf.reshape(portions, [-1, *portions.shape[2:]])
