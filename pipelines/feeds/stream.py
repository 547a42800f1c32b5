"""The streaming feed: reads and decodes examples while the training loop runs.

A thread reads stored examples and enqueues them in chunks. A tf.data pipeline dequeues the chunks,
decodes them in parallel and prefetches blocks (`_table`) of the examples of consecutive steps. No
Python runs in the pipeline: TensorFlow holds the GIL while it destroys a pipeline, so a pipeline
that waits for Python would deadlock. The loop receives a block, not the pipeline, so XLA can
compile the loop.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pipelines import nests
from pipelines.errors import reason
from pipelines.feeds import gatherable
from pipelines.feeds.batch_layout import Batch, BatchPlan, OpenedSteps
from pipelines.feeds.block_reader import BlockReader
from pipelines.feeds.replicas import local_replicas, per_replica_values
from pipelines.host import usable_cores
from pipelines.source import Source
from pipelines.splits import DataSplit, no_progress
from pipelines.storage.decode import (
    DECODE_CHUNK,
    constants,
    decode_batch,
    decode_cropped,
    options_without_autotune,
    without_autograph,
)

_TABLE = 4 << 20  # approximate maximum bytes of a prefetched block, which has at least one step
_MAX_CHUNK = 128  # maximum number of examples in a chunk, which one parallel call decodes
_LARGE = 1 << 14  # number of examples of a split from which a chunk is decoded without a loop
_QUEUE_CAPACITY = 16  # in chunks; a few suffice, because reading is cheap
_READY = 1  # decoded blocks to prefetch for each replica, besides the one in progress

_streams: weakref.WeakSet[StreamingFeed] = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    """Closes all streaming feeds before the interpreter exits."""
    for stream in list(_streams):
        stream.close()


class StreamingFeed:
    """Feed that reads and decodes the examples of a split ahead of their use by the loop.

    `cache_dir` and `progress` are as for `DataSplit.reader`.

    Raises:
      ValueError, OSError: as `DataSplit.reader`.
    """

    def __init__(
        self,
        source: Source,
        split: DataSplit,
        plan: BatchPlan,
        strategy: tf.distribute.Strategy,
        cache_dir: str,
        progress: Callable[[int], None] = no_progress,
    ) -> None:
        self.examples, self.steps_per_epoch = plan.examples, plan.steps_per_epoch
        self._plan, self._strategy, self._source = plan, strategy, source
        self.layout, self.has_padding = plan.layout, plan.has_padding
        self._for_gpu = gatherable.needed()
        self._iterator: Any = None
        self._queue: Any = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None  # of the thread that reads
        reader = split.reader(cache_dir, progress)
        # Examples in file order, as for evaluation, are not cropped.
        self._crop = source.crop if plan.seed is not None else None
        self._spec = (
            reader.spec,
            self._crop.spec if self._crop else (),
            tf.TensorSpec([], tf.float32) if plan.include_fixed else (),
        )
        # Number of steps in a block, and number and size of the chunks that it is decoded in.
        per_step = plan.layout.local_micro_batches * plan.fetched
        input_bytes = max(nests.example_bytes(source.decoded[0]), 1)
        self._steps = min(max(1, _TABLE // (per_step * input_bytes)), plan.steps_per_epoch)
        self._chunks = -(-self._steps * per_step // _MAX_CHUNK)
        self._chunk_size = -(-self._steps * per_step // self._chunks)
        size = {"steps": self._steps, "chunks": self._chunks, "chunk_size": self._chunk_size}
        self._blocks = BlockReader(reader, plan, self._crop, **size)
        self._per_iteration = self._chunk_size if len(split) >= _LARGE else DECODE_CHUNK
        self._table: Any = None
        self._first = 0  # first step of the block of decoded examples, `_table`
        _streams.add(self)

    def open(self, step: int, steps: int) -> OpenedSteps:
        """Returns the number of steps from `step` to the end of its block, and the graph's input.

        A block has the decoded examples of consecutive steps. The number is at most `steps`. The
        input is (offset, per-replica tensors of the block), where step + offset is the index of a
        step in the block. If the block is not the current one, waits until it is decoded; if it is
        not the next one either, restarts the pipeline first.

        Raises:
          RuntimeError: when stored examples could not be read.
          tf.errors.OpError: when an example could not be decoded.
        """
        position = step
        if self._plan.seed is None:  # all epochs are alike: continue from the current block
            position = self._first + (step - self._first) % self.steps_per_epoch
        first = position - position % self._steps
        if self._table is None or first != self._first:
            follows = self._table is not None and first == self._first + self._steps
            self._table = None  # remains None if the next one cannot be made
            if not follows:
                self.close()
                first, position = step - step % self._steps, step
                self._start(first)
            self._table = per_replica_values(self._strategy, self._next_block)
            self._first = first
        offset: Any = tf.constant(position - step - first, tf.int64)
        if self._for_gpu:  # each replica has one
            offset = per_replica_values(self._strategy, lambda: tf.identity(offset))
        return OpenedSteps(min(steps, first + self._steps - position), (offset, self._table))

    @property
    def prefetched_steps(self) -> int:
        """Maximum number of steps whose examples are decoded, or being decoded, at a time."""
        return self._steps * (_READY + 3)  # plus the current block and two in progress

    def close(self) -> None:
        """Discards the current block, and stops prefetching and the reader thread.

        A later `open` starts both again.
        """
        if self._thread is not None:
            self._queue.close(cancel_pending_enqueues=True)
            self._thread.join()
        self._iterator = self._queue = self._thread = self._table = None

    def next(self, given: Any) -> Any:
        """Returns `given`, which is the `element` of `batch` for all steps of an `open`."""
        return given

    def batch(self, element: Any, step: tf.Tensor, replica: Any, micro_batch: Any = 0) -> Batch:
        """Returns a local micro-batch of a step, gathered from a prefetched block.

        The examples are contiguous, but gathered by index: XLA treats the start of a slice as a
        constant where possible, and would recompile the loop for every block.
        """
        offset, table = element
        rows, local = self._plan.fetched, tf.cast(micro_batch, tf.int64)
        first = ((step + offset) * self.layout.local_micro_batches + local) * rows
        indices = first + tf.range(rows, dtype=tf.int64)
        specs = tf.nest.flatten(self._source.decoded)
        leaves = [
            gatherable.restored(tf.gather(leaf, indices), spec)
            for leaf, spec in zip(table, specs, strict=False)
        ]
        inputs, targets = tf.nest.pack_sequence_as(self._source.decoded, leaves)
        fixed = tf.gather(table[-1], indices) if self._plan.include_fixed else ()
        return self._plan.masked(inputs, targets, step, replica, micro_batch, fixed)

    def _next_block(self) -> tuple[tf.Tensor, ...]:
        try:
            block = next(self._iterator)
            # One replica gets the block in the memory of the host, too: copy it once, not per step.
            return tuple(map(tf.identity, block)) if self._for_gpu else block
        except (StopIteration, tf.errors.OpError):
            if self._failure is not None:  # what stopped the pipeline says more
                raise RuntimeError(reason(self._failure)) from self._failure
            raise

    def _start(self, step: int) -> None:
        replicas = local_replicas(self._strategy)
        stored = tf.nest.flatten(self._spec)
        shapes = [[self._chunk_size, *leaf.shape] for leaf in stored]
        self._failure = None
        with tf.device("CPU:0"):
            queue = tf.queue.FIFOQueue(_QUEUE_CAPACITY, [leaf.dtype for leaf in stored], shapes)
            # Decoding a whole chunk in one parallel call takes a quarter of the time of decoding
            # single examples and batching them afterwards.
            self._iterator = iter(
                tf.data.Dataset.counter()
                .map(without_autograph(lambda _: _tuple(queue.dequeue())))
                .map(
                    without_autograph(self._decode),
                    num_parallel_calls=usable_cores(),
                    deterministic=True,
                )
                .batch(self._chunks, drop_remainder=True)
                .map(without_autograph(self._block))
                .prefetch(_READY * len(replicas))
                .with_options(options_without_autotune())
            )
        self._queue = queue
        self._thread = threading.Thread(
            target=self._fill, args=(queue, replicas, step), daemon=True, name="read-ahead"
        )
        self._thread.start()

    def _decode(self, *stored: tf.Tensor) -> tuple[tf.Tensor, ...]:
        examples, draws, fixed = tf.nest.pack_sequence_as(self._spec, stored)
        if self._crop:
            decoded = decode_cropped(self._source, examples, draws)
        else:
            decoded = decode_batch(self._source, examples, self._per_iteration)
        return tuple(tf.nest.flatten((decoded, fixed)))

    def _block(self, *parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
        leaves = map(_concatenate, parts)
        return tuple(map(gatherable.gatherable, leaves) if self._for_gpu else leaves)

    def _fill(self, queue: tf.queue.FIFOQueue, replicas: range, step: int) -> None:
        """Enqueues stored examples by block and replica from `step` on until `queue` is closed.

        If that fails, stores the error in `_failure` and closes the queue.
        """
        try:
            while True:
                self._blocks.forget(step)
                for replica in replicas:
                    for stored in self._blocks.chunks(step, replica):
                        with tf.device("CPU:0"):
                            queue.enqueue(tf.nest.flatten(constants(stored)))
                step += self._steps
        except (tf.errors.CancelledError, tf.errors.AbortedError):
            return  # the feed was closed
        except BaseException as error:
            self._failure = error
            queue.close()  # reading failed: the pipeline must not wait forever


def _tuple(dequeued: Any) -> tuple[tf.Tensor, ...]:
    """Returns dequeued elements as a tuple; a queue of one component returns a tensor instead."""
    return tuple(tf.nest.flatten(dequeued))


def _concatenate(chunks: tf.Tensor) -> tf.Tensor:
    """Concatenates c chunks of k examples: [c, k, ...] -> [c * k, ...]."""
    return tf.reshape(chunks, [-1, *chunks.shape[2:]])
