"""The examples of one step, read on their own: to be looked at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines import order
from pipelines.decode import decode_batch
from pipelines.records import RecordReader
from pipelines.source import Records, Source


class Examples(NamedTuple):
    """Some examples of a split, as they are stored.

    numbers: int32 [k], places in the split.
    images: uint8 or float32 [k, H, W, C].
    labels: int32 [k].
    """

    numbers: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def examples_of_step(
    source: Source,
    records: Records,
    step: int,
    *,
    global_batch_size: int,
    seed: int,
    look_ahead: bool = False,
) -> Examples:
    """What a training step sees, before augmentation, in the order of its rows.

    Args:
      source: how an example is decoded.
      records: the training split.
      step: from 0.
      global_batch_size: of a full step.
      seed: of the order.
      look_ahead: whether the last row is mixed with the example after it, which then comes last.
    """
    epoch, place = divmod(step, order.steps_per_epoch(len(records), global_batch_size))
    first = place * global_batch_size
    end = min(first + global_batch_size, len(records)) + look_ahead
    places = np.arange(first, end) % len(records)
    numbers = order.permuted(seed, epoch, len(records), places)
    with tf.device("CPU:0"):
        serialized, _ = RecordReader(records.ranges).read(numbers)
        images, labels = decode_batch(source, tf.constant(serialized))
    return Examples(numbers, images.numpy(), labels.numpy())
