"""The comparison of candidates in `--mode=tune`, with processes that only pretend to train."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config.schema import Config
from engine.tune import contest
from engine.tune.choices import Candidate

FIRST, FAST, DYING, BROKEN = (Candidate(jit=jit) for jit in ("auto", "loop", "step", "off"))


class Pretended(contest.CandidateProcess):
    """A candidate whose rates are given; it ends after them."""

    rates_of: dict[Candidate, list[float]]

    def __init__(self, config: Config, candidate: Candidate) -> None:
        self.candidate, self.rates, self.metadata, self.error = candidate, [], {}, ""
        self._answers: list[dict[str, Any]] = [
            {"steps": rate, "seconds": 1.0} for rate in self.rates_of[candidate]
        ]
        self._process = self  # type: ignore[assignment]
        self.stdin = None
        self._ready = False

    def _answer(self) -> dict[str, Any]:
        if not self._ready:
            self._ready = True
            return {} if self._answers else {"error": "no such option"}
        return self._answers.pop(0) if self._answers else {"error": "the process ended"}

    def close(self) -> None:
        """Does nothing: there is no process."""


@pytest.fixture
def compared(monkeypatch, capsys):
    """Returns a function that compares candidates with given rates, each in steps/s."""
    monkeypatch.setattr(contest, "CandidateProcess", Pretended)
    monkeypatch.setattr(contest, "ROUNDS", 4)
    monkeypatch.setattr(contest, "_ELIMINATE_BELOW", {})

    def result(rates: dict[Candidate, list[float]]) -> contest.ComparisonResult:
        Pretended.rates_of = rates
        others = [each for each in rates if each != FIRST]
        return contest.contest(Config(), FIRST, lambda _: others, lambda: None)

    return result


def test_failed_candidates_are_named(compared):
    """A candidate that cannot start, and one that ends later, have a reason and no speed."""
    found = compared({FIRST: [10.0] * 4, FAST: [20.0] * 4, DYING: [90.0] * 2, BROKEN: []})
    assert found.errors == {DYING: "the process ended", BROKEN: "no such option"}
    assert found.ratios == {FIRST: 1.0, FAST: 2.0, DYING: 0.0, BROKEN: 0.0}
    assert found.rates[DYING] == 0.0 and found.best() == FAST


def test_first_candidate_fails(compared):
    with pytest.raises(RuntimeError, match=r"^the process ended$"):
        compared({FIRST: [10.0] * 2, FAST: [20.0] * 4})
