"""Computes the order of the examples in an epoch: a pure function of (seed, epoch) (L3, L4)."""

from __future__ import annotations

import functools

import numpy as np

# Orders of up to this many examples are made by sorting. In a larger one, each position is computed
# independently, so the order need not be held in memory.
_SORTED = 1 << 20
_ROUNDS = 8  # rounds of the cipher; four random rounds are proven to suffice


def permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Returns the order of the examples in an epoch.

    Args:
      seed: seed of the run, 0 or more.
      epoch: 0 or more.
      examples: number of examples, n.

    Returns:
      int32 [n], a permutation of 0 .. n-1; read-only.
    """
    if examples <= _SORTED:
        return _sorted(seed, epoch, examples)
    order = permutation_at(seed, epoch, examples, np.arange(examples))
    order.setflags(write=False)
    return order


def permutation_at(seed: int, epoch: int, examples: int, places: np.ndarray) -> np.ndarray:
    """Returns the example indices at positions `places`: permutation(...)[places], int32 [k].

    Args:
      seed: seed of the run, 0 or more.
      epoch: 0 or more.
      examples: number of examples, n.
      places: int [k], positions in the epoch's order, each in 0 .. n-1.
    """
    if examples <= _SORTED:
        return _sorted(seed, epoch, examples)[places]
    keys = _hashed(seed, epoch).generate_state(_ROUNDS, np.uint64)
    found = _enciphered(keys, examples, places.astype(np.uint64))
    while len(outside := np.flatnonzero(found >= examples)):
        found[outside] = _enciphered(keys, examples, found[outside])  # cycle walking
    return found.astype(np.int32)


@functools.lru_cache(maxsize=4)
def _sorted(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Returns the order that sorts one random 64-bit key per example, int32 [n]; read-only.

    NumPy guarantees the bits of Philox and the result of a stable sort in all its versions, but not
    the result of its own `permutation`.
    """
    keys = np.random.Philox(_hashed(seed, epoch)).random_raw(examples)
    places = np.argsort(keys, kind="stable").astype(np.int32)
    places.setflags(write=False)
    return places


def _hashed(seed: int, epoch: int) -> np.random.SeedSequence:
    """Returns a hash of seed and epoch, as a source of keys.

    If they were used as keys directly, the orders for neighbouring seeds would be correlated.
    """
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed {seed} and epoch {epoch} must not be negative")
    return np.random.SeedSequence([seed, epoch])


def _enciphered(keys: np.ndarray, examples: int, numbers: np.ndarray) -> np.ndarray:
    """Maps numbers by a permutation of the integers that have at most as many bits as n - 1.

    A Feistel network: each round changes one half of the bits by a hash of the other half. A round
    is invertible, so the whole is a permutation.

    Args:
      keys: keys of the rounds, uint64; an even number of them.
      examples: number of examples, n, which determines the number of bits.
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
    """Hashes 64 bits to 64 bits with avalanche: the finalizer of SplitMix64 (Steele, 2014)."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def steps_per_epoch(examples: int, global_batch_size: int) -> int:
    """Returns the number of steps that cover every example once.

    The last step may be partial: no remainder is dropped (L1).

    Args:
      examples: number of examples of the split, 1 or more.
      global_batch_size: number of examples in a full step, over all replicas, 1 or more.

    Raises:
      ValueError: when an argument is below 1.
    """
    if examples < 1 or global_batch_size < 1:
        raise ValueError(
            f"{examples} examples in batches of {global_batch_size}: must be 1 or more"
        )
    return -(-examples // global_batch_size)
