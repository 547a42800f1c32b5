"""The stream feed: examples read and decoded while the loop runs, a table of some steps at a time.

A thread reads encoded examples and puts them in a queue, a few at a time; tf.data takes them out,
decodes them side by side and makes tables of them. No Python runs inside the pipeline: TensorFlow
takes a pipeline down while it holds Python's lock, and one that waited for Python then would wait
for ever. The loop is given a table, not the pipeline: so it may be compiled, and is as fast as with
the resident feed where decoding keeps up.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.decode import AT_ONCE, decode_batch, decode_pictures, side_by_side, untuned
from pipelines.plan import Batch, Opened, Plan
from pipelines.records import RecordReader
from pipelines.replicas import local_replicas, on_each_replica
from pipelines.source import Records, Source

_TABLE = 4 << 20  # bytes of a table, about; one step at least
_READ_AHEAD = 16  # portions: reading is cheap beside decoding, so a few suffice
_READY = 1  # decoded tables of each replica that wait, beside one that is being made

_streams: weakref.WeakSet[Stream] = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    """Ends the reading threads while Python still runs."""
    for stream in list(_streams):
        stream.close()


class Stream:
    """Examples read and decoded as they are needed.

    Args:
      source: how an example is decoded.
      records: which examples.
      plan: which of them a step sees.
      strategy: whose replicas are fed.
      cache_dir: where the records' index is kept between starts.
      progress: told how many more examples are in the index, now and then.
    """

    def __init__(
        self,
        source: Source,
        records: Records,
        plan: Plan,
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
        # Steps of a table, and portions that it is decoded in: as equal as can be.
        self._of_step = plan.layout.pieces * plan.fetched
        pixels = int(np.prod(source.image_shape)) * np.dtype(source.dtype).itemsize
        fitting = max(1, _TABLE // (self._of_step * pixels))
        self._steps = min(fitting, plan.steps_per_epoch)
        self._portions = -(-self._steps * self._of_step // AT_ONCE)
        self._of_portion = -(-self._steps * self._of_step // self._portions)
        self._table: Any = None
        self._first = 0  # the step that the table begins with
        _streams.add(self)

    def open(self, step: int, steps: int) -> Opened:
        """(steps from the first of a table to step 0, the table), of each replica."""
        at = step
        if self._plan.in_file_order:  # each epoch is the same: goes on where it stands
            at = self._first + (step - self._first) % self.steps_per_epoch
        first = at - at % self._steps
        if self._table is None or first != self._first:
            follows = self._table is not None and first == self._first + self._steps
            self._table = None  # should the next one fail
            if not follows:
                self.close()
                first = step - step % self._steps
                at = step
                self._start(first)
            self._table = on_each_replica(self._strategy, lambda: next(self._iterator))
            self._first = first
        left = first + self._steps - at
        return Opened(min(steps, left), (tf.constant(at - step - first, tf.int64), self._table))

    @property
    def ahead(self) -> int:
        """Steps, at most, whose examples are ready or on the way when one is opened."""
        return self._steps * (_READY + 3)  # the one that is open, and one being made on either side

    def close(self) -> None:
        """Stops reading ahead; `open` starts it again."""
        if self._thread is not None:
            self._queue.close(cancel_pending_enqueues=True)
            self._thread.join()
        self._iterator = self._queue = self._thread = self._table = None

    def next(self, given: Any) -> Any:
        """The same for all steps of a table."""
        return given

    def batch(
        self, element: Any, step: tf.Tensor, replica: tf.Tensor | int, piece: tf.Tensor | int = 0
    ) -> Batch:
        """Gathers the rows of a piece.

        They lie side by side, but XLA takes where a slice begins for a constant, as far as it can,
        and would compile the loop anew for every table.
        """
        shift, (images, labels) = element
        rows, at = self._plan.fetched, tf.cast(piece, tf.int64)
        first = ((step + shift) * self.layout.pieces + at) * rows
        chosen = first + tf.range(rows, dtype=tf.int64)
        images, labels = tf.gather(images, chosen), tf.gather(labels, chosen)
        return self._plan.masked(images, labels, step, replica, piece)

    def _start(self, step: int) -> None:
        here = local_replicas(self._strategy)
        size, portions = self._of_portion, self._portions
        with tf.device("CPU:0"):
            queue = tf.queue.FIFOQueue(_READ_AHEAD, [tf.string, tf.int32], [[size], [size]])

            # A whole portion is decoded by one thread, portions side by side: a quarter of the cost
            # of mapping example by example and batching after.
            self._iterator = iter(
                tf.data.Dataset.counter()
                .map(lambda _: queue.dequeue())
                .map(self._decode, num_parallel_calls=side_by_side(), deterministic=True)
                .batch(portions, drop_remainder=True)
                .map(lambda *parts: tuple(map(_in_one, parts)))
                .prefetch(_READY * len(here))
                .with_options(untuned())
            )
        self._queue = queue
        self._thread = threading.Thread(
            target=self._fill, args=(queue, here, step), daemon=True, name="read-ahead"
        )
        self._thread.start()

    def _decode(self, stored: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if self._source.pictures is None:
            return decode_batch(self._source, stored)
        return decode_pictures(self._source, stored), labels

    def _fill(self, queue: tf.queue.FIFOQueue, replicas: range, step: int) -> None:
        """Puts each replica's rows of a table, then of the next table, into the queue."""
        count = self._portions * self._of_portion
        try:
            while True:
                for replica in replicas:
                    # Rows of the last portion that are no step's are those of its beginning.
                    numbers = np.resize(self._rows(step, replica), count)
                    for some in np.split(numbers, self._portions):
                        stored, labels = self._reader.read(some)
                        with tf.device("CPU:0"):
                            queue.enqueue([tf.constant(stored), tf.constant(labels)])
                step += self._steps
        except (tf.errors.CancelledError, tf.errors.AbortedError):
            return  # closed while, or before, waiting for room
        except BaseException:
            queue.close()  # reading failed: who waits for more must not wait for ever
            raise

    def _rows(self, first: int, replica: int) -> np.ndarray:
        """Which examples a replica's table holds, in the order of its rows, int [k]."""
        plan = self._plan
        steps = np.arange(first, first + self._steps)
        of_each = np.arange(plan.layout.pieces)[:, None], np.arange(plan.fetched)
        _, places, _ = plan.places(steps[:, None, None], replica, *of_each)
        epochs = np.broadcast_to(steps[:, None, None] // plan.steps_per_epoch, places.shape)
        found = np.empty(places.shape, np.int64)
        for epoch in np.unique(epochs):
            found[epochs == epoch] = plan.chosen(epoch, places[epochs == epoch] % plan.examples)
        return found.ravel()


def _in_one(portions: tf.Tensor) -> tf.Tensor:
    """[p, k, ...] -> [p k, ...]."""
    return tf.reshape(portions, [-1, *portions.shape[2:]])
