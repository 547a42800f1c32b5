"""Random numbers that no generator remembers: the draw behind dropout."""

from __future__ import annotations

import hashlib

import tensorflow as tf

from models import philox

PHILOX = 1  # tf.random.Algorithm.PHILOX, as the raw op wants it


class Noise:
    """Random numbers as a pure function of (seed, step, row of the global batch).

    Row `k` of what one replica draws for the whole global batch is, bit for bit, row 0 of what a
    replica draws that starts at `row=k`. So neither the number of replicas nor a restart can
    change a draw, and there is nothing to save (L3).

    seed: the run's seed, any integer.
    step: int64 [], the training step.
    row: int64 [], the index in the global batch of the first row that this replica holds.
    compiled: whether XLA compiles the draws. Said rightly, it changes no bit; wrongly false, the
      numbers are others, wrongly true, they take longer.
    """

    def __init__(
        self, seed: int, step: tf.Tensor, row: tf.Tensor | int = 0, *, compiled: bool = False
    ):
        self._seed = seed
        self._step = tf.cast(step, tf.int64)
        self._row = tf.cast(row, tf.int64)
        self._compiled = compiled

    def uniform(self, stream: int, rows: tf.Tensor | int, features: int) -> tf.Tensor:
        """Draws float32 [rows, features] from [0, 1).

        stream: tells the draws of one step apart; by convention the drawing layer's index.
        """
        # Philox maps (64-bit key, 128-bit counter) to a block, so give each of the three arguments
        # a place of its own: the stream is the key, the step the counter's high word. A row is a
        # whole number of blocks, so that row k starts where the low word says k * blocks.
        blocks = -(-features // philox.WORDS)
        width = blocks * philox.WORDS
        key = tf.constant([stream_key(self._seed, stream)], tf.uint64)
        counter = tf.cast(tf.stack([self._row * blocks, self._step]), tf.uint64)
        if self._compiled:  # where XLA replaces the kernel by a draw of other floats
            drawn = philox.uniform(key[0], counter, tf.cast(rows, tf.int64) * blocks)
            drawn = tf.reshape(drawn, [rows, width])
        else:
            drawn = tf.raw_ops.StatelessRandomUniformV2(
                shape=[rows, width], key=key, counter=counter, alg=PHILOX
            )
        return drawn if features == width else drawn[:, :features]


def stream_key(seed: int, stream: int) -> int:
    """Hashes (seed, stream) to a uint64, the same in every process and Python version."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
