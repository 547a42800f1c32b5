"""Candidates that --mode=tune measures, and its choice."""

from __future__ import annotations

import pytest

from engine.config import flags
from engine.config.schema import Config
from engine.tune.choices import Candidate, around, first
from engine.tune.contest import ComparisonResult


@pytest.mark.parametrize("jit", ["off", "step", "loop"])
@pytest.mark.parametrize("cores", [1, 2, 16])
@pytest.mark.parametrize("now", [0, 1])
@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_tries_nothing_twice(jit, now, feed, cores):
    tried = [Candidate(), *first(jit, now, cores)]
    assert len(set(tried)) == len(tried)
    counts = {each.intra_op_threads or now or cores for each in tried}
    assert counts == {1, max(1, cores // 2), cores}
    assert now not in {each.intra_op_threads for each in tried} - {0}
    assert jit not in {each.jit for each in tried}  # auto covers it
    for best in tried:
        beside = list(around(best, feed, "on"))
        assert len({best, *beside}) == 1 + len(beside)
        assert {each.onednn for each in beside} == {"auto", "off"}
        assert {each.onednn for each in around(best, feed, "")} == {"auto"}
        assert feed not in {each.feed for each in beside}


def test_candidate_as_options():
    """The text of a candidate, as options, selects the values that `applied` sets."""
    choice = Candidate("loop", "resident", 1, 2, "32", "off")
    config = choice.applied(Config())
    assert flags.parse(str(choice).split()) == flags.parse(
        [
            f"--{name}={value}"
            for name, value in (
                ("jit", config.loop.jit),
                ("feed", config.data.feed),
                ("intra_op_threads", config.devices.intra_op_threads),
                ("inter_op_threads", config.devices.inter_op_threads),
                ("steps_per_loop", config.loop.steps_per_loop),
                ("onednn", config.devices.onednn),
            )
        ]
    )
    assert Candidate().applied(Config()) == Config()


def test_takes_clearly_faster_candidate():
    found = ComparisonResult({})
    now, slower, hardly, faster = (
        Candidate(),
        Candidate("step"),
        Candidate("loop"),
        Candidate("off"),
    )
    found.ratios = {now: 1.0, slower: 0.5, hardly: 1.005}
    assert found.best() == now
    found.ratios[faster] = 1.2
    assert found.best() == faster
