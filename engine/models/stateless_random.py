"""Stateless random numbers, for dropout and augmentation."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from engine.models import philox

MOST_DROPPED = 1 - 2.0**-15  # maximum dropout rate: its scale, 2^15, fits in float16
PHILOX = 1  # tf.random.Algorithm.PHILOX, as the raw op expects it


class StatelessRNG:
    """Random numbers as a pure function of (seed, step, row of the global batch).

    Row `k` of a draw for the whole global batch is bitwise identical to row 0 of a draw that starts
    at `row=k`. So a draw depends neither on the number of replicas nor on restarts, and there is no
    state to save (L3).

    Args:
      seed: seed of the run, any integer.
      step: training step, or the epoch for augmentation, int64 [].
      row: index in the global batch of the first row on this replica, or for augmentation in the
        order of the epoch, int64 [].
      compiled: whether XLA compiles the draws. The numbers do not depend on the compilation if this
        is set correctly: False under XLA changes them, True without XLA only makes draws slower.
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

        Args:
          stream: number that distinguishes the draws of one step; for a layer, its index.
          rows: number of rows.
          features: number of values per row.
        """
        return philox.uniform(self._bits(stream, rows, features * 32, tf.uint32))

    def dropout(
        self, stream: int, rows: tf.Tensor | int, features: int, rate: float, dtype: tf.DType
    ) -> tf.Tensor:
        """Draws 0 with probability `rate`, else 1 / (1 - rate), of `dtype` [rows, features].

        A value uses the fewest random bits that represent the rate, of 1, 2, 4 or 8: 1 for 1/2, 8
        at most for a multiple of 1/256. Other rates use 16 bits and are rounded to a multiple of
        2^-16; if the rounding error exceeds 1% of `rate` or of `1 - rate`, they use 32 bits. The
        scale 1 / (1 - rate) is computed from the rounded rate.

        Args:
          stream: as in `uniform`; must be different for each draw of a step.
          rows: number of rows.
          features: number of values per row.
          rate: probability of 0, in [0, MOST_DROPPED].
          dtype: dtype of the result.
        """
        bits = next((few for few in (1, 2, 4, 8) if float(rate * 2**few).is_integer()), 0)
        if not bits:
            off = abs(round(rate * 2**16) / 2**16 - rate)
            bits = 16 if off <= 0.01 * min(rate, 1 - rate) else 32
        numbers = 2**bits
        dropped = round(rate * numbers)  # elements with a random number below this are dropped
        factor = numbers / (numbers - dropped)
        if bits < 16:  # one table lookup per random byte
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
        """Draws `dtype` [rows, numbers]: the fewest numbers per row that hold `bits` bits."""
        # Philox maps (64-bit key, 128-bit counter) to a block of words. The key is a hash of seed
        # and stream, the high half of the counter is the step. A row is a whole number of blocks,
        # so that for row k the low half of the counter starts at k * blocks.
        blocks = -(-bits // (32 * philox.WORDS))
        width = blocks * philox.WORDS
        key = tf.constant([stream_key(self._seed, stream)], tf.uint64)
        counter = tf.cast(tf.stack([self._row * blocks, self._step]), tf.uint64)
        if self._compiled:  # XLA would replace the kernel with its own, which draws other bits
            words = philox.bits(key[0], counter, tf.cast(rows, tf.int64) * blocks)
        else:
            words = tf.raw_ops.StatelessRandomUniformFullIntV2(
                shape=[rows, width], key=key, counter=counter, alg=PHILOX, dtype=tf.uint32
            )
        numbers = tf.reshape(tf.bitcast(words, dtype), [rows, width * 4 // dtype.size])
        return numbers[:, : -(-bits // (8 * dtype.size))]


def stream_key(seed: int, stream: int) -> int:
    """Hashes (seed, stream) to a uint64 that is equal in all processes and Python versions."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
