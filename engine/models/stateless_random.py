"""Stateless random numbers, for dropout and augmentation, by Philox 4x32-10.

Salmon, Moraes, Dror and Shaw, 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import tensorflow as tf

MAX_DROPOUT_RATE = 1 - 2.0**-15  # its scale, 2^15, fits in float16
BLOCK_WORDS = 4  # number of 32-bit words in a block of Philox
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85  # golden ratio; sqrt(3) - 1
_LOW = 0xFFFFFFFF


class StatelessRNG:
    """Random number generator: a pure function of (seed, stream, step, row of the global batch).

    Row `k` of a draw for the whole global batch is bitwise identical to row 0 of a draw that starts
    at `row=k`. So a draw depends neither on the number of replicas nor on restarts, and there is no
    state to save.

    Args:
      seed: seed of the run, any integer.
      step: training step, or the epoch for augmentation, int64 [].
      row: index of the first row of a draw, in the global batch or, for augmentation, in the order
        of the epoch, int64 [].
      compiled: whether XLA compiles the draws. The numbers do not depend on the compilation if this
        is set correctly: False under XLA changes them, True without XLA only makes draws slower.

    Attributes:
      step: training step or epoch, int64 [].
      row: index of the first row of a draw, int64 [].
      drawn: set of the kinds of numbers drawn so far: "per_example" for `uniform` and `dropout`,
        "per_microbatch" for `seed`.
    """

    def __init__(
        self, seed: int, step: tf.Tensor, row: tf.Tensor | int = 0, *, compiled: bool = False
    ):
        self._seed, self._compiled = seed, compiled
        self.step, self.row = tf.cast(step, tf.int64), tf.cast(row, tf.int64)
        self.drawn: set[str] = set()

    def at(self, step: tf.Tensor, row: tf.Tensor) -> StatelessRNG:
        """Returns a generator of the same seed at another step and row, with the same `drawn`."""
        moved = copy.copy(self)
        moved.step, moved.row = step, row
        return moved

    def uniform(self, stream: int, rows: tf.Tensor | int, features: int) -> tf.Tensor:
        """Draws uniform random numbers in [0, 1), float32 [rows, features].

        `stream` distinguishes the draws of one step; for dropout, it is the index of the layer.
        """
        self.drawn.add("per_example")
        return uniform_floats(self._bits(stream, rows, features * 32, tf.uint32))

    def dropout(
        self, stream: int, rows: tf.Tensor | int, features: int, rate: float, dtype: tf.DType
    ) -> tf.Tensor:
        """Draws a dropout mask, `dtype` [rows, features].

        An element is 0 with probability `rate`, else 1 / (1 - rate). An element uses 1, 2, 4 or 8
        random bits, the fewest that represent a rate that is a multiple of 1/256. Other rates, up
        to MAX_DROPOUT_RATE, are rounded to a multiple of 2^-16, with 16 random bits; or to one of
        2^-32, with 32 bits, if the error would be above 1% of `rate` or of `1 - rate`. The scale
        uses the rounded rate. `stream`, the index of the layer, distinguishes the draws of one
        step.
        """
        self.drawn.add("per_example")
        bits = next((few for few in (1, 2, 4, 8) if float(rate * 2**few).is_integer()), 0)
        if not bits:
            error = abs(round(rate * 2**16) / 2**16 - rate)
            bits = 16 if error <= 0.01 * min(rate, 1 - rate) else 32
        limit = 2**bits
        dropped = round(rate * limit)  # elements with a random number below this are dropped
        factor = limit / (limit - dropped)
        if bits < 16:  # one table lookup per random byte
            drawn = tf.cast(self._bits(stream, rows, features * bits, tf.uint8), tf.int32)
            fields = np.arange(256)[:, None] >> np.arange(0, 8, bits) & (limit - 1)
            table = tf.constant(np.where(fields < dropped, 0, factor), dtype)
            drawn = tf.reshape(tf.gather(table, drawn), [rows, drawn.shape[1] * 8 // bits])
        else:
            integer = tf.int16 if bits == 16 else tf.uint32
            drawn = self._bits(stream, rows, features * bits, integer)
            if bits == 32:  # a GPU reshapes and compares int32 on the host
                drawn = tf.cast(tf.bitcast(drawn, tf.int32), tf.int64)
            drawn = tf.cast(drawn >= tf.constant(dropped - limit // 2, drawn.dtype), dtype) * factor
        return drawn if features == drawn.shape[1] else drawn[:, :features]

    def seed(self, name: str) -> tf.Tensor:
        """Draws a seed for `tf.random.stateless_*` operations, int32 [2], from the stream `name`.

        The seed depends on the first row of the micro-batch, so that these operations draw the same
        numbers only if the global batch is divided into the same micro-batches.
        """
        self.drawn.add("per_microbatch")
        return tf.bitcast(self._bits(f"seed/{name}", 1, 64, tf.uint32)[0], tf.int32)

    def _bits(
        self, stream: int | str, rows: tf.Tensor | int, bits: int, dtype: tf.DType
    ) -> tf.Tensor:
        """Draws random integers, `dtype` [rows, n], where n of them hold at least `bits` bits."""
        # The key of Philox is a hash of seed and stream, the high half of the counter is the step.
        # A row is a whole number of blocks, so that row k starts at k * blocks in the low half.
        blocks = -(-bits // (32 * BLOCK_WORDS))
        width = blocks * BLOCK_WORDS
        key = tf.constant([stream_key(self._seed, stream)], tf.uint64)
        counter = tf.cast(tf.stack([self.row * blocks, self.step]), tf.uint64)
        if self._compiled:  # XLA would replace the kernel with its own, which draws other bits
            words = philox_bits(key[0], counter, tf.cast(rows, tf.int64) * blocks)
        else:
            algorithm = tf.random.Algorithm.PHILOX.value
            words = tf.raw_ops.StatelessRandomUniformFullIntV2(
                shape=[rows, width], key=key, counter=counter, alg=algorithm, dtype=tf.uint32
            )
        numbers = tf.reshape(tf.bitcast(words, dtype), [rows, width * 4 // dtype.size])
        return numbers[:, : -(-bits // (8 * dtype.size))]


def stream_key(seed: int, stream: int | str) -> int:
    """Returns a 64-bit hash of (seed, stream), equal in all processes and Python versions."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniform_floats(words: tf.Tensor) -> tf.Tensor:
    """Converts random uint32 words to float32 in [0, 1), as `StatelessRandomUniformV2` does."""
    # The low 23 bits are the mantissa of a number in [1, 2); XLA's own kernel takes the high bits.
    return tf.bitcast(words & 0x007FFFFF | 0x3F800000, tf.float32) - 1


def philox_bits(key: tf.Tensor, counter: tf.Tensor, blocks: tf.Tensor | int) -> tf.Tensor:
    """Draws random uint32 [BLOCK_WORDS * blocks], the same with and without XLA.

    Without XLA, `StatelessRandomUniformFullIntV2` draws the same numbers. `key` is uint64 [];
    `counter`, uint64 [2], is the low and the high half of the 128-bit counter of the first block,
    which increases by 1 from block to block, modulo 2^128.
    """
    # Each 32-bit word is held in a uint64, so that a product of two words fits. Word i of all
    # blocks is a vector, uint64 [blocks].
    low = counter[0] + tf.cast(tf.range(tf.cast(blocks, tf.int64)), tf.uint64)
    high = counter[1] + tf.cast(low < counter[0], tf.uint64)
    words = [*_halves(low), *_halves(high)]
    key_0, key_1 = _halves(key)
    for _ in range(10):
        low_0, high_0 = _halves(words[0] * _MULTIPLIERS[0])
        low_1, high_1 = _halves(words[2] * _MULTIPLIERS[1])
        words = [high_1 ^ words[1] ^ key_0, low_1, high_0 ^ words[3] ^ key_1, low_0]
        key_0, key_1 = (key_0 + _KEY_STEPS[0]) & _LOW, (key_1 + _KEY_STEPS[1]) & _LOW
    # Two words are packed in each uint64: if XLA stacks four vectors of words instead, its code is
    # several times slower.
    pairs = [low | tf.bitwise.left_shift(high, 32) for low, high in (words[:2], words[2:])]
    return tf.reshape(tf.bitcast(tf.stack(pairs, axis=1), tf.uint32), [-1])


def _halves(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return x & _LOW, tf.bitwise.right_shift(x, 32)
