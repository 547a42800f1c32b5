"""Times interleaved blocks of several variants.

The speed of a shared machine may change by half within minutes. So two variants are compared by the
median of the ratios of adjacent blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Floats = Sequence[float] | np.ndarray


def interleave_blocks(
    variants: Mapping[str, Callable[[], float]], rounds: int
) -> Iterator[dict[str, float]]:
    """Times a block of each variant in each round, starting each round with another variant.

    Args:
      variants: functions by name; each runs a block and returns its duration in seconds.
      rounds: number of rounds.

    Yields:
      {variant: seconds} of each round.
    """
    names = list(variants)
    for number in range(rounds):
        at = number % len(names)
        found = {name: variants[name]() for name in names[at:] + names[:at]}
        yield {name: found[name] for name in names}


def spread(values: Floats, *percentiles: int) -> dict[str, float]:
    """Returns percentiles of one or more values: {"median": ..., "p10": ...}; 50 is "median"."""
    found = np.percentile(np.asarray(values, np.float64), percentiles)
    names = ["median" if each == 50 else f"p{each}" for each in percentiles]
    return dict(zip(names, map(float, found), strict=True))


def median_ratio(ours: Floats, theirs: Floats) -> float:
    """Returns the median of ours / theirs over the rounds."""
    return float(np.median(np.divide(ours, theirs)))
