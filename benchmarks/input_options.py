"""The options of the tf.data pipelines of contenders."""

from __future__ import annotations

import tensorflow as tf

READY = 4  # batches that are prefetched
PARALLEL = 2  # calls of a map at once


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset without autotuning: its parallelism and prefetching are as given.

    With autotuning, the end of an iterator can wait for the tuning thread, which sleeps for 10 ms
    times a power of two: a `fit` of 0.8 s then takes 1.28 s, and one of 3 s 5.12 s.
    """
    fixed = tf.data.Options()
    fixed.autotune.enabled = False
    return dataset.with_options(fixed)
