"""Tests over a product of choices, of which a part runs every time and all of it by `-m full`.

The part is a covering design: every combination of choices of so many factors occurs in it. Kuhn
et al. 2004 found that hardly any fault needs more than three factors to meet, and most need two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest


def covering(factors: Iterable[Sequence[Any]], strength: int) -> list[tuple[int, ...]]:
    """Cases among which every combination of choices of `strength` factors occurs.

    Greedy, and always the same.

    Args:
      factors: each is a sequence of choices.
      strength: of how many factors all combinations occur; 1 or more.

    Returns:
      For each case the index of its choice in each factor.
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
    """Parameters of a test over all cases; those outside the covering part are marked full.

    Args:
      factors: each is a sequence of choices.
      strength: as for `covering`.
      name: what a choice is called in the test's name.
    """
    part = set(covering(factors, strength))
    found = []
    for case in itertools.product(*(range(len(each)) for each in factors)):
        values = [each[index] for each, index in zip(factors, case, strict=True)]
        marks = () if case in part else pytest.mark.full
        found.append(pytest.param(*values, id="-".join(map(name, values)), marks=marks))
    return found


def seldom(*values: Any) -> Any:
    """Parameters of a test that only `-m full` takes."""
    return pytest.param(*values, marks=pytest.mark.full)
