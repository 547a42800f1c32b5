"""Timed blocks of several variants, taken in turn.

A machine that others use drifts by half within minutes, so two variants are compared by blocks
that lie beside each other, and as a median of their ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Floats = Sequence[float] | np.ndarray


def interleaved(
    variants: Mapping[str, Callable[[], float]], rounds: int
) -> Iterator[dict[str, float]]:
    """Takes a block of each variant in each round; who comes first changes from round to round.

    Args:
      variants: by name, what takes a block and gives its seconds.
      rounds: how often.

    Yields:
      {variant: seconds}, a round at a time.
    """
    names = list(variants)
    for number in range(rounds):
        at = number % len(names)
        found = {name: variants[name]() for name in names[at:] + names[:at]}
        yield {name: found[name] for name in names}


def spread(values: Floats, *percentiles: int) -> dict[str, float]:
    """{"median": ..., "p10": ..., ...} of values, at least one; 50 is called median."""
    found = np.percentile(np.asarray(values, np.float64), percentiles)
    names = ["median" if each == 50 else f"p{each}" for each in percentiles]
    return dict(zip(names, map(float, found), strict=True))


def median_ratio(ours: Floats, theirs: Floats) -> float:
    """Median of ours / theirs, round by round."""
    return float(np.median(np.divide(ours, theirs)))
