"""Philox 4x32-10 in integer operations: bitwise identical to TensorFlow's kernel, also in XLA.

Salmon, Moraes, Dror and Shaw, 2011, "Parallel random numbers: as easy as 1, 2, 3". XLA has its own
implementation, which computes a float from the high bits of a word; the kernel uses the low bits.
"""

from __future__ import annotations

import tensorflow as tf

WORDS = 4  # number of 32-bit words in a block
_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85  # golden ratio; sqrt(3) - 1
_LOW = 0xFFFFFFFF


def uniform(words: tf.Tensor) -> tf.Tensor:
    """Converts random uint32 words to float32 in [0, 1), as `StatelessRandomUniformV2` does."""
    # The low 23 bits are the mantissa of a number in [1, 2).
    mantissa = tf.bitwise.bitwise_and(words, 0x007FFFFF)
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, 0x3F800000), tf.float32) - 1


def bits(key: tf.Tensor, counter: tf.Tensor, blocks: tf.Tensor | int) -> tf.Tensor:
    """Draws uint32 [WORDS * blocks], as `StatelessRandomUniformFullIntV2` does.

    Args:
      key: key of the generator, uint64 [].
      counter: 128-bit counter of the first block, its low and its high half, uint64 [2]. It
        increases by 1 from block to block, modulo 2**128.
      blocks: number of blocks, integer [].
    """
    # Each 32-bit word is held in a uint64, so that a product of two words fits. Word i of all
    # blocks is a vector, uint64 [blocks].
    low = counter[0] + tf.cast(tf.range(tf.cast(blocks, tf.int64)), tf.uint64)
    high = counter[1] + tf.cast(low < counter[0], tf.uint64)
    words = [*_halves(low), *_halves(high)]
    key_0, key_1 = _halves(key)
    for _ in range(_ROUNDS):
        low_0, high_0 = _halves(words[0] * _MULTIPLIERS[0])
        low_1, high_1 = _halves(words[2] * _MULTIPLIERS[1])
        words = [_xor(high_1, words[1], key_0), low_1, _xor(high_0, words[3], key_1), low_0]
        key_0, key_1 = _sum(key_0, _KEY_STEPS[0]), _sum(key_1, _KEY_STEPS[1])
    # Two words are packed in each uint64: if XLA stacks four vectors of words instead, its code is
    # several times slower.
    pairs = tf.stack([_pair(*words[:2]), _pair(*words[2:])], axis=1)
    return tf.reshape(tf.bitcast(pairs, tf.uint32), [-1])


def _halves(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.bitwise.bitwise_and(x, _LOW), tf.bitwise.right_shift(x, 32)


def _pair(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_or(low, tf.bitwise.left_shift(high, 32))


def _sum(x: tf.Tensor, step: int) -> tf.Tensor:
    return tf.bitwise.bitwise_and(x + step, _LOW)


def _xor(x: tf.Tensor, y: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(x, y), z)
