"""`tests.choices`: which combinations of parameters run by default."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as some

from tests.choices import Rare, choices, covering


@given(some.lists(some.integers(1, 4), min_size=1, max_size=5), some.integers(1, 3))
def test_covers_every_combination(sizes, strength):
    factors = [range(size) for size in sizes]
    strength = min(strength, len(sizes))
    found = covering(factors, strength)
    for some_factors in itertools.combinations(range(len(sizes)), strength):
        wanted = set(itertools.product(*(factors[each] for each in some_factors)))
        assert {tuple(case[each] for each in some_factors) for case in found} == wanted
    assert len(found) == len(set(found))


def test_marks_cases_outside_selection():
    found = choices("ab", [1, 2, 3])
    assert [param.id for param in found] == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]
    often = [param.values for param in found if not param.marks]
    assert {letter for letter, _ in often} == {"a", "b"} and len(often) == 3


def test_rare_choice_is_not_selected():
    found = choices("ab", [1, Rare(2), 3], strength=2)
    assert [param.id for param in found] == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]
    assert [param.id for param in found if param.marks] == ["a-2", "b-2"]
    assert [param.values for param in found if param.id == "b-2"] == [("b", 2)]
