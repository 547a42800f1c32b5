"""Times alternating blocks of training steps of several variants, to compare their speed.

The speed of a shared machine may change by half within minutes, so two variants are compared by
the median of the ratios of adjacent blocks.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Floats = Sequence[float] | np.ndarray


def interleave_blocks(
    variants: Mapping[str, Callable[[], float]], rounds: int
) -> Iterator[dict[str, float]]:
    """Runs a block of steps of each variant in each round; yields a round's seconds by variant.

    Each variant is a function that runs a block and returns the duration in seconds. Each round
    starts with the next variant, in turn.
    """
    names = collections.deque(variants)
    for _ in range(rounds):
        seconds = {name: variants[name]() for name in names}
        yield {name: seconds[name] for name in variants}
        names.rotate(-1)


def spread(values: Floats, *percentiles: int) -> dict[str, float]:
    """Returns percentiles of one or more values by name: "p10" for 10, but "median" for 50."""
    results = np.percentile(np.asarray(values, np.float64), percentiles).tolist()
    names = ["median" if each == 50 else f"p{each}" for each in percentiles]
    return dict(zip(names, results, strict=True))


def median_ratio(ours: Floats, theirs: Floats) -> float:
    """Returns the median of the ratios `ours / theirs`, of one pair of values per round."""
    return float(np.median(np.divide(ours, theirs)))
