from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.stateless_random import BLOCK_WORDS, philox_bits, uniform_floats

BLOCKS = 5
LAST = 2**64 - 1
EDGES = [0, 1, 2**31, 2**32 - 3, 2**32 - 1, 2**32, 2**63 - 2, 2**63, 2**64 - 3, LAST]
HALVES = st.sampled_from(EDGES) | st.integers(0, LAST)


def uint64(value):
    return tf.constant(np.array(value, np.uint64))


def draw(key, counter, blocks):
    words = philox_bits(key, counter, blocks)
    return words, uniform_floats(words)


HOW = {
    "eager": partial(draw, blocks=BLOCKS),
    "graph": tf.function(partial(draw, blocks=BLOCKS)),
    "xla": tf.function(partial(draw, blocks=BLOCKS), jit_compile=True),
}


def kernel(key, counter, size=BLOCK_WORDS * BLOCKS):
    """Returns the random bits and floats that TensorFlow's stateless kernels draw."""
    args = {"shape": [size], "key": uint64([key]), "counter": uint64(counter), "alg": 1}
    return (
        tf.raw_ops.StatelessRandomUniformFullIntV2(**args, dtype=tf.uint32),
        tf.raw_ops.StatelessRandomUniformV2(**args),
    )


def assert_same(drawn, expected):
    for one, other in zip(drawn, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.numpy().tobytes() == other.numpy().tobytes()


def halves(text):
    """Returns 64-bit numbers of hexadecimal 32-bit words, of which the low word comes first."""
    words = [int(word, 16) for word in text.split()]
    return [low | high << 32 for low, high in zip(words[::2], words[1::2], strict=True)]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(how, counter, key, block):
    """Blocks equal the known-answer tests of the Philox authors."""
    words, _ = HOW[how](uint64(halves(key)[0]), uint64(halves(counter)))
    assert [f"{word:08x}" for word in words.numpy()[:BLOCK_WORDS]] == block.split()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("low", EDGES)
def test_matches_kernel_at_overflow(how, low):
    for high in EDGES:
        drawn = HOW[how](uint64(low ^ high), uint64([low, high]))
        assert_same(drawn, kernel(low ^ high, [low, high]))


@pytest.mark.parametrize("how", ["graph", "xla"])
@given(key=HALVES, low=HALVES, high=HALVES)
@settings(max_examples=200, derandomize=True)
def test_matches_kernel_for_any_key(how, key, low, high):
    assert_same(HOW[how](uint64(key), uint64([low, high])), kernel(key, [low, high]))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("blocks", [1, 4099])
def test_matches_kernel_for_any_length(blocks, jit_compile):
    key, counter = 2**63 + 5, [2**32 - 2000, 9]
    drawn = tf.function(partial(draw, blocks=blocks), jit_compile=jit_compile)
    expected = kernel(key, counter, BLOCK_WORDS * blocks)
    assert_same(drawn(uint64(key), uint64(counter)), expected)


@pytest.mark.parametrize("how", HOW)
def test_starts_at_any_block(how):
    key = uint64(11)
    whole = HOW[how](key, uint64([LAST - 1, 6]))
    later = HOW[how](key, uint64([0, 7]))  # two blocks later, after the low half has overflowed
    skipped = 2 * BLOCK_WORDS
    assert_same([drawn[skipped:] for drawn in whole], [drawn[:-skipped] for drawn in later])
