"""(seed, epoch) -> the order in which examples are seen. Pure (L3, L4)."""

from __future__ import annotations

import functools

import numpy as np

# Above so many examples an order is computed place by place, not sorted: no memory is taken.
_SORTED = 1 << 20
_ROUNDS = 8  # of the cipher; four are proven to be enough where each is random


def permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    """The order of one epoch.

    Args:
      seed: of the run, 0 or more.
      epoch: 0 or more.
      examples: how many there are, n.

    Returns:
      int32 [n], each of 0 .. n-1 once; not writeable.
    """
    if examples <= _SORTED:
        return _sorted(seed, epoch, examples)
    order = permuted(seed, epoch, examples, np.arange(examples))
    order.setflags(write=False)
    return order


def permuted(seed: int, epoch: int, examples: int, places: np.ndarray) -> np.ndarray:
    """What stands at some places of the order of an epoch: permutation(...)[places], int32 [k].

    Args:
      seed: of the run, 0 or more.
      epoch: 0 or more.
      examples: how many there are, n.
      places: int [k], each in 0 .. n-1.
    """
    if examples <= _SORTED:
        return _sorted(seed, epoch, examples)[places]
    keys = _hashed(seed, epoch).generate_state(_ROUNDS, np.uint64)
    found = _enciphered(keys, examples, places.astype(np.uint64))
    while len(outside := np.flatnonzero(found >= examples)):
        found[outside] = _enciphered(keys, examples, found[outside])  # goes on until it is inside
    return found.astype(np.int32)


@functools.lru_cache(maxsize=4)
def _sorted(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Each example gets a random 64-bit key and the keys are sorted.

    NumPy guarantees the bits of Philox and the result of a stable sort for all its versions, which
    it does not for its own `permutation`.
    """
    keys = np.random.Philox(_hashed(seed, epoch)).random_raw(examples)
    places = np.argsort(keys, kind="stable").astype(np.int32)
    places.setflags(write=False)
    return places


def _hashed(seed: int, epoch: int) -> np.random.SeedSequence:
    """Neighbouring seeds used directly as keys would give neighbouring epochs correlated orders."""
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed {seed} and epoch {epoch} must not be negative")
    return np.random.SeedSequence([seed, epoch])


def _enciphered(keys: np.ndarray, examples: int, numbers: np.ndarray) -> np.ndarray:
    """Numbers of as many bits as `examples` - 1 has, each to one of its own.

    A Feistel network: in each round one half of the bits is changed by a hash of the other, which
    could be undone, so that no two numbers become the same.

    Args:
      keys: uint64, one a round; an even number.
      examples: says how many bits.
      numbers: uint64 [k].
    """
    bits = (examples - 1).bit_length()
    widths = np.uint64(bits // 2), np.uint64(bits - bits // 2)
    one = np.uint64(1)
    left, right = numbers >> widths[1], numbers & ((one << widths[1]) - one)
    for turn, key in enumerate(keys):
        mask = (one << widths[turn % 2]) - one
        left, right = right, left ^ (_mixed(right + key) & mask)
    return left << widths[1] | right


def _mixed(x: np.ndarray) -> np.ndarray:
    """A hash of 64 bits to 64 bits that avalanches: the finalizer of SplitMix64 (Steele, 2014)."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def steps_per_epoch(examples: int, global_batch_size: int) -> int:
    """Steps that cover every example once; the last one may be partial (L1: no remainder dropped).

    Args:
      examples: of the split, 1 or more.
      global_batch_size: examples of one full step, over all replicas, 1 or more.

    Raises:
      ValueError: when one of them is below 1.
    """
    if examples < 1 or global_batch_size < 1:
        raise ValueError(
            f"{examples} examples in batches of {global_batch_size}: must be 1 or more"
        )
    return -(-examples // global_batch_size)
