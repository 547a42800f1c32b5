"""Serves the engine's streaming feed as a benchmark contender: reads batches without a model.

    python -m benchmarks.engine_stream DATA_DIR [EXAMPLES]      see benchmarks/serve.py

EXAMPLES: number of examples of the training split, 59,904 by default. A step reads one batch.
"""

from __future__ import annotations

import sys

from engine.runtime.startup import import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402

import engine  # noqa: E402
from benchmarks.serve import serve  # noqa: E402
from benchmarks.workloads import EXAMPLES, SEED  # noqa: E402
from pipelines import BatchLayout, StreamingFeed, default_cache_dir, open_feed  # noqa: E402
from pipelines.sources.tfds import open_source  # noqa: E402

BATCH = 128


class Consumer:
    """Reader of batches of the streaming feed, many in one call of the graph, as in training.

    Args:
      data_dir: directory in which the data set is prepared.
      examples: number of examples of the training split to read; 0: all.
      dataset: name of the data set, of images with class labels.
      cache_dir: directory of the record index; "": the default one.

    Attributes:
      feed: the streaming feed.
      seen: "examples", the number of examples read, and "labels", the sum of their labels.
    """

    def __init__(
        self,
        data_dir: str,
        examples: int = EXAMPLES[BATCH],
        dataset: str = "mnist",
        cache_dir: str = "",
    ) -> None:
        cache_dir = cache_dir or default_cache_dir()
        source = open_source(
            dataset,
            data_dir=data_dir,
            cache_dir=cache_dir,
            train_split=f"train[:{examples}]" if examples else "train",
            validation_split="0",
            test_split="",
        )
        feed = open_feed(
            "stream",
            source,
            source.train,
            global_batch_size=BATCH,
            seed=SEED,
            layout=BatchLayout(),
            strategy=tf.distribute.get_strategy(),
            cache_dir=cache_dir,
        )
        assert isinstance(feed, StreamingFeed)
        self.feed = feed
        self.seen = {"examples": 0, "labels": 0}
        self._step = 0
        self._compiled = tf.function(self._batches, autograph=False)

    def take(self, steps: int) -> None:
        """Reads a number of batches, with at least one call of the graph for each epoch."""
        per_epoch = self.feed.steps_per_epoch
        while steps:
            most = min(steps, per_epoch - self._step % per_epoch)
            portion, given = self.feed.open(self._step, most)
            step = tf.constant(self._step, tf.int64)
            examples, labels = self._compiled(step, step + portion, given)
            self.seen["examples"] += int(examples)
            self.seen["labels"] += int(labels)
            self._step += portion
            steps -= portion

    def _batches(self, step: tf.Tensor, end: tf.Tensor, given: object) -> list[tf.Tensor]:
        """Reads the batches of the steps from `step` until before `end`, in the graph.

        `given` is the graph's input from the feed. Returns the number of examples and the sum of
        their labels, int64 [].
        """

        def one(step: tf.Tensor, examples: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
            batch = self.feed.batch(self.feed.next(given), step, 0)
            valid = tf.cast(batch.mask, tf.int64)
            more = tf.reduce_sum(tf.cast(batch.targets, tf.int64) * valid)
            with tf.control_dependencies([batch.inputs]):
                return [step + 1, examples + tf.reduce_sum(valid), labels + more]

        zero = tf.constant(0, tf.int64)
        return tf.while_loop(
            lambda step, *_: step < end, one, [step, zero, zero], parallel_iterations=1
        )[1:]


def main() -> None:
    """Serves requests for batches through benchmarks/serve.py."""
    data_dir, *examples = sys.argv[1:]
    consumer = Consumer(data_dir, *map(int, examples))
    consumer.take(1)
    versions = {"tapeline": engine.__version__, "tensorflow": tf.__version__}
    serve(consumer.take, versions, lambda: consumer.seen)
    consumer.feed.close()


if __name__ == "__main__":
    main()
