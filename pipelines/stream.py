"""The stream feed: examples read and decoded while the loop runs.

A thread slices serialized examples out of the mapped files and puts them in a queue, a replica's
rows at a time; tf.data takes them out and decodes them side by side. No Python runs inside the
pipeline: TensorFlow takes a pipeline down while it holds Python's lock, and one that waited for
Python then would wait for ever.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.decode import decode_batch, side_by_side, untuned
from pipelines.plan import Batch, Plan
from pipelines.records import RecordReader
from pipelines.source import Records, Source

_READ_AHEAD = 8  # portions a replica: reading is cheap beside decoding, so a few suffice
_READY = 2  # decoded portions a replica that wait

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
    """

    def __init__(
        self, source: Source, records: Records, plan: Plan, strategy: tf.distribute.Strategy
    ) -> None:
        self.examples, self.steps_per_epoch = plan.examples, plan.steps_per_epoch
        self._plan, self._strategy, self._source = plan, strategy, source
        self.layout = plan.layout
        self._iterator: Any = None
        self._queue: Any = None
        self._thread: threading.Thread | None = None
        self._reader = RecordReader(records.ranges)
        self._at = -1
        _streams.add(self)

    def open(self, step: int, steps: int) -> Any:
        """An iterator that stands at `step`; the running one if it does, else a new one."""
        if self._iterator is None or self._at != step:
            self.close()
            self._start(step)
        self._at = step + steps
        return self._iterator

    def close(self) -> None:
        """Stops reading ahead; `open` starts it again."""
        if self._thread is not None:
            self._queue.close(cancel_pending_enqueues=True)
            self._thread.join()
        self._iterator = self._queue = self._thread = None

    def _start(self, step: int) -> None:
        plan = self._plan
        here = _local_replicas(self._strategy)
        with tf.device("CPU:0"):
            queue = tf.queue.FIFOQueue(
                _READ_AHEAD * len(here),
                [tf.string],
                shapes=[[plan.layout.pieces * plan.fetched]],
            )

            def pipeline(_: object = None) -> tf.data.Dataset:
                # A whole portion is decoded by one thread, portions side by side: half the cost
                # of mapping example by example and batching after.
                return (
                    tf.data.Dataset.counter()
                    .map(lambda _: queue.dequeue())
                    .map(
                        lambda serialized: decode_batch(self._source, serialized),
                        num_parallel_calls=side_by_side(),
                        deterministic=True,
                    )
                    .prefetch(_READY)
                    .with_options(untuned())
                )

            if plan.layout.replicas == 1:
                self._iterator = iter(pipeline())
            else:
                self._iterator = iter(self._strategy.distribute_datasets_from_function(pipeline))
        self._queue = queue
        self._thread = threading.Thread(
            target=_fill,
            args=(queue, self._reader, plan, here, step),
            daemon=True,
            name="read-ahead",
        )
        self._thread.start()

    def next(self, opened: Any) -> Any:
        """The next portion of every replica."""
        return next(opened)

    def batch(
        self, element: Any, step: tf.Tensor, replica: tf.Tensor | int, piece: tf.Tensor | int = 0
    ) -> Batch:
        """A piece of the portion, with its mask."""
        if self.layout.pieces > 1:
            arange = tf.range(self._plan.fetched, dtype=tf.int64)
            rows = tf.cast(piece, tf.int64) * self._plan.fetched + arange
            element = [tf.gather(part, rows) for part in element]
        images, labels = element
        return self._plan.masked(images, labels, step, replica, piece)


def _local_replicas(strategy: tf.distribute.Strategy) -> range:
    """Which replicas are this machine's."""
    if strategy.num_replicas_in_sync == 1:
        return range(1)
    count = len(strategy.extended.worker_devices)
    resolver = strategy.cluster_resolver
    first = resolver.task_id * count if resolver is not None else 0
    return range(first, first + count)


def _fill(
    queue: tf.queue.FIFOQueue, reader: RecordReader, plan: Plan, replicas: range, step: int
) -> None:
    """Puts each replica's rows of `step`, then of the next step, into the queue, until closed."""
    arange = np.arange(plan.fetched)
    epoch, order = -1, np.zeros(0, np.int32)
    try:
        while True:
            if epoch != step // plan.steps_per_epoch:
                epoch = step // plan.steps_per_epoch
                order = plan.order(epoch)
            for replica in replicas:
                places = [
                    plan.places(step, replica, piece, arange)[1]
                    for piece in range(plan.layout.pieces)
                ]
                chosen = order[np.concatenate(places) % plan.examples]
                with tf.device("CPU:0"):
                    queue.enqueue(tf.constant(reader.read(chosen)))
            step += 1
    except (tf.errors.CancelledError, tf.errors.AbortedError):
        return  # closed while, or before, waiting for room
    except BaseException:
        queue.close()  # reading failed: who waits for more must not wait for ever
        raise
