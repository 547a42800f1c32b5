"""Random numbers that no generator remembers: those behind dropout and augmentation."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from models import philox

MOST_DROPPED = 1 - 2.0**-15  # a dropout's rate: float16 holds what makes up for it, 2^15
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
        return philox.uniform(self._bits(stream, rows, features * 32, tf.uint32))

    def dropout(
        self, stream: int, rows: tf.Tensor | int, features: int, rate: float, dtype: tf.DType
    ) -> tf.Tensor:
        """Draws 0 with probability `rate`, else what makes up for it, of `dtype` [rows, features].

        A draw takes the fewest bits that hold the rate: one for 1/2, up to eight for 256ths. Others
        take sixteen, and are rounded to a 65,536th, or thirty-two where that is not within 1% of
        the rate and of what it keeps; what makes up for it is exact of the rounded one,
        1 / (1 - rate).

        stream: as of `uniform`; no two draws of a step share one.
        rate: in [0, MOST_DROPPED].
        """
        bits = next((few for few in (1, 2, 4, 8) if float(rate * 2**few).is_integer()), 0)
        if not bits:
            off = abs(round(rate * 2**16) / 2**16 - rate)
            bits = 16 if off <= 0.01 * min(rate, 1 - rate) else 32
        numbers = 2**bits
        dropped = round(rate * numbers)  # those below it
        factor = numbers / (numbers - dropped)
        if bits < 16:  # a byte of noise at a time, looked up
            drawn = tf.cast(self._bits(stream, rows, features * bits, tf.uint8), tf.int32)
            fields = np.arange(256)[:, None] >> np.arange(0, 8, bits) & (numbers - 1)
            table = tf.constant(np.where(fields < dropped, 0, factor), dtype)
            drawn = tf.reshape(tf.gather(table, drawn), [rows, drawn.shape[1] * 8 // bits])
        else:
            kind = tf.int16 if bits == 16 else tf.int32
            drawn = self._bits(stream, rows, features * bits, kind)
            drawn = tf.cast(drawn >= tf.constant(dropped - numbers // 2, kind), dtype) * factor
        return drawn if features == drawn.shape[1] else drawn[:, :features]

    def _bits(self, stream: int, rows: tf.Tensor | int, bits: int, dtype: tf.DType) -> tf.Tensor:
        """Draws at least so many bits a row, as [rows, whole numbers]; as few as hold them."""
        # Philox maps (64-bit key, 128-bit counter) to a block, so each of the three arguments has a
        # place of its own: the stream is the key, the step the counter's high word. A row is a
        # whole number of blocks, so that row k starts where the low word says k * blocks.
        blocks = -(-bits // (32 * philox.WORDS))
        width = blocks * philox.WORDS
        key = tf.constant([stream_key(self._seed, stream)], tf.uint64)
        counter = tf.cast(tf.stack([self._row * blocks, self._step]), tf.uint64)
        if self._compiled:  # where XLA replaces the kernel by a draw of other bits
            words = philox.bits(key[0], counter, tf.cast(rows, tf.int64) * blocks)
        else:
            words = tf.raw_ops.StatelessRandomUniformFullIntV2(
                shape=[rows, width], key=key, counter=counter, alg=PHILOX, dtype=tf.uint32
            )
        numbers = tf.reshape(tf.bitcast(words, dtype), [rows, width * 4 // dtype.size])
        return numbers[:, : -(-bits // (8 * dtype.size))]


def stream_key(seed: int, stream: int) -> int:
    """Hashes (seed, stream) to a uint64, the same in every process and Python version."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
