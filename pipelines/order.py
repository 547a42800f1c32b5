"""(seed, epoch) -> the order in which examples are seen. Pure (L3, L4)."""

from __future__ import annotations

import functools

import numpy as np


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    """The order of one epoch.

    The pair is hashed (NumPy's SeedSequence) before it keys a Philox generator, because
    neighbouring seeds used directly give neighbouring epochs correlated orders. Each example gets
    a random 64-bit key and the keys are sorted: NumPy guarantees the bits of Philox and the result
    of a stable sort for all its versions, which it does not for its own `permutation`.

    Args:
      seed: of the run, 0 or more.
      epoch: 0 or more.
      examples: how many there are, n.

    Returns:
      int32 [n], each of 0 .. n-1 once; not writeable, because the last few are remembered.
    """
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed {seed} and epoch {epoch} must not be negative")
    keys = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(examples)
    places = np.argsort(keys, kind="stable").astype(np.int32)
    places.setflags(write=False)
    return places


def steps_per_epoch(examples: int, global_batch_size: int) -> int:
    """Steps that cover every example once; the last one may be partial (L1: no remainder dropped).

    Args:
      examples: of the split.
      global_batch_size: examples of one full step, over all replicas.
    """
    return -(-examples // global_batch_size)
