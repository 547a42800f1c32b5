"""Order of an epoch's examples, and random numbers of positions: functions of seed and epoch.

They keep the laws L3 and L4 of docs/concepts/laws.md.
"""

from __future__ import annotations

import functools

import numpy as np

# Orders of up to this many examples are made by sorting. In a larger one, each position is computed
# independently, so the order need not be held in memory.
_SORTED = 1 << 20
# Indices are int32 for up to this many examples, as in all earlier versions, else int64.
INT32_EXAMPLES = 1 << 31
_GOLDEN = 0x9E3779B97F4A7C15  # increment of SplitMix64
_ROUNDS = 8  # rounds of the cipher; four random rounds are proven to suffice


def permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Returns the indices of all n examples in an epoch's order, `index_dtype` [n]; read-only.

    Raises:
      ValueError: when the seed or the epoch is negative.
    """
    if examples <= _SORTED:
        return _sorted(seed, epoch, examples)
    order = permutation_at(seed, epoch, examples, np.arange(examples))
    order.setflags(write=False)
    return order


def permutation_at(seed: int, epoch: int, examples: int, positions: np.ndarray) -> np.ndarray:
    """Returns `permutation(seed, epoch, examples)[positions]`; positions are int [k].

    A large order is not computed as a whole. The indices are `index_dtype` [k].

    Raises:
      ValueError: when the seed or the epoch is negative.
    """
    if examples <= _SORTED:
        return _sorted(seed, epoch, examples)[positions]
    keys = _seed_sequence(seed, epoch).generate_state(_ROUNDS, np.uint64)
    indices = _encipher(keys, examples, positions.astype(np.uint64))
    while len(outside := np.flatnonzero(indices >= examples)):
        indices[outside] = _encipher(keys, examples, indices[outside])  # cycle walking
    return indices.astype(index_dtype(examples))


def index_dtype(examples: int) -> type[np.signedinteger]:
    """Returns the dtype of the indices of n examples: int32, or int64 above 2**31 examples."""
    return np.int32 if examples <= INT32_EXAMPLES else np.int64


@functools.lru_cache(maxsize=4)
def _sorted(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Returns the order that sorts one random 64-bit key per example, int32 [n]; read-only.

    Raises:
      ValueError: when the seed or the epoch is negative.
    """
    # All versions of NumPy have the same bits of Philox and of a stable sort, not of `permutation`.
    keys = np.random.Philox(_seed_sequence(seed, epoch)).random_raw(examples)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    order.setflags(write=False)
    return order


def _seed_sequence(seed: int, epoch: int) -> np.random.SeedSequence:
    """Returns a seed sequence that hashes seed and epoch; ValueError if either is negative."""
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed {seed} and epoch {epoch} must not be negative")
    # Unhashed, neighbouring seeds would give correlated orders.
    return np.random.SeedSequence([seed, epoch])


def uniform(seed: int, epoch: int, positions: np.ndarray, numbers: int) -> np.ndarray:
    """Returns uniform random numbers in [0, 1) for positions in an epoch, float64 [k, numbers].

    A row is a pure function of seed, epoch and position: consecutive outputs of SplitMix64 (Steele
    et al. 2014), which has random access. The numbers are independent of the order of the epoch.

    Args:
      seed: seed of the run, 0 or more.
      epoch: epoch, 0 or more.
      positions: positions in the epoch's order, int [k].
      numbers: number of random numbers for each position.

    Raises:
      ValueError: when the seed or the epoch is negative.
    """
    state = _seed_sequence(seed, epoch).spawn(1)[0].generate_state(1, np.uint64)
    first = positions.astype(np.uint64)[:, None] * np.uint64(numbers)
    counter: np.ndarray = first + np.arange(1, numbers + 1, dtype=np.uint64)
    words = _mix(state + counter * np.uint64(_GOLDEN))
    return np.ldexp((words >> np.uint64(11)).astype(np.float64), -53)


def fixed(seed: int, examples: np.ndarray) -> np.ndarray:
    """Returns a uniform random number in [0, 1) for each example, float32 [k].

    A number is a pure function of the seed and of the example's index in its split, and so the same
    in all epochs.

    Args:
      seed: seed of the run, 0 or more.
      examples: indices of examples, int [k].

    Raises:
      ValueError: when the seed is negative.
    """
    state = _seed_sequence(seed, 0).spawn(2)[1].generate_state(1, np.uint64)
    words = _mix(state + (examples.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))
    return np.ldexp((words >> np.uint64(40)).astype(np.float32), -24)


def _encipher(keys: np.ndarray, examples: int, positions: np.ndarray) -> np.ndarray:
    """Maps positions, uint64 [k], by a keyed permutation of the integers 0 to 2**bits - 1.

    `bits` is the number of bits of `examples` - 1. The permutation is a Feistel network: each
    round, one per key, changes one half of the bits by a hash of the other half, which is
    invertible. The number of rounds is even.
    """
    bits = (examples - 1).bit_length()
    widths = np.uint64(bits // 2), np.uint64(bits - bits // 2)
    one = np.uint64(1)
    left, right = positions >> widths[1], positions & ((one << widths[1]) - one)
    for turn, key in enumerate(keys):
        mask = (one << widths[turn % 2]) - one
        left, right = right, left ^ (_mix(right + key) & mask)
    return left << widths[1] | right


def _mix(x: np.ndarray) -> np.ndarray:
    """Returns a hash of each uint64 by the finalizer of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def steps_per_epoch(examples: int, global_batch_size: int) -> int:
    """Returns the number of steps that cover every example once; the last batch may be smaller.

    Raises:
      ValueError: when an argument is below 1.
    """
    if examples < 1 or global_batch_size < 1:
        raise ValueError(
            f"{examples} examples in batches of {global_batch_size}: must be 1 or more"
        )
    return -(-examples // global_batch_size)
