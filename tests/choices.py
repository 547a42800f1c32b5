"""Test parameters from a product of factors: a covering design by default, others with `-m full`.

In a covering design of strength t, every combination of choices of t factors occurs. Kuhn et al.
(2004) found that most faults need two interacting factors, and hardly any more than three.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pytest


class Rare(NamedTuple):
    """A choice of a factor that occurs only with `-m full`."""

    value: Any


def covering(factors: Iterable[Sequence[Any]], strength: int) -> list[tuple[int, ...]]:
    """Returns a covering design, found by a deterministic greedy search.

    Args:
      factors: sequences of choices.
      strength: number of factors whose combinations all occur, 1 or more.

    Returns:
      For each case, the index of its choice in each factor.
    """
    cases = list(itertools.product(*(range(len(choices)) for choices in factors)))

    def combinations(case: tuple[int, ...]) -> set:
        return set(itertools.combinations(enumerate(case), strength))

    missing = set().union(*map(combinations, cases))
    chosen = []
    while missing:
        case = max(cases, key=lambda case: len(combinations(case) & missing))
        chosen.append(case)
        missing -= combinations(case)
    return chosen


def choices(
    *factors: Sequence[Any], strength: int = 1, name: Callable[[Any], str] = str
) -> list[Any]:
    """Returns test parameters for all cases; cases outside a covering design are marked `full`.

    Args:
      *factors: sequences of choices; all cases with a `Rare` choice are marked `full`.
      strength: as for `covering`.
      name: returns the name of a choice in the test ID.
    """
    usual = [
        [index for index, each in enumerate(choices) if not isinstance(each, Rare)]
        for choices in factors
    ]
    part = {
        tuple(indices[index] for indices, index in zip(usual, case, strict=True))
        for case in covering(usual, strength)
    }
    found = []
    for case in itertools.product(*(range(len(each)) for each in factors)):
        values = [each[index] for each, index in zip(factors, case, strict=True)]
        values = [each.value if isinstance(each, Rare) else each for each in values]
        marks = () if case in part else pytest.mark.full
        found.append(pytest.param(*values, id="-".join(map(name, values)), marks=marks))
    return found


def seldom(*values: Any) -> Any:
    """Returns a test parameter of these values that is marked `full`: it runs with `-m full`."""
    return pytest.param(*values, marks=pytest.mark.full)
