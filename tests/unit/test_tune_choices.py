"""What --mode=tune tries, and which of it it takes."""

from __future__ import annotations

import pytest

from engine import flags
from engine.config import Config
from engine.tune.choices import Choice, around, first
from engine.tune.contest import Found


@pytest.mark.parametrize("jit", ["off", "step", "loop"])
@pytest.mark.parametrize("cores", [1, 2, 16])
@pytest.mark.parametrize("now", [0, 1])
@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_nothing_is_tried_twice(jit, now, feed, cores):
    tried = [Choice(), *first(jit, now, cores)]
    assert len(set(tried)) == len(tried)
    counts = {each.intra_op_threads or now or cores for each in tried}
    assert counts == {1, max(1, cores // 2), cores}
    assert now not in {each.intra_op_threads for each in tried} - {0}
    assert jit not in {each.jit for each in tried}  # auto stands for it
    for best in tried:
        beside = list(around(best, feed, cores))
        assert len({best, *beside}) == 1 + len(beside)
        assert feed not in {each.feed for each in beside}


def test_a_choice_is_options_that_are_no_part_of_the_mathematics():
    choice = Choice("loop", "resident", 1, 2, "32")
    config = choice.applied(Config())
    assert flags.parse(choice.flags()) == flags.parse(
        [
            f"--{name}={value}"
            for name, value in (
                ("jit", config.training.jit),
                ("feed", config.data.feed),
                ("intra_op_threads", config.training.intra_op_threads),
                ("inter_op_threads", config.training.inter_op_threads),
                ("steps_per_loop", config.training.steps_per_loop),
            )
        ]
    )
    assert Choice().applied(Config()) == Config()


def test_another_choice_is_taken_only_where_it_is_worth_it():
    found = Found()
    now, slower, hardly, faster = Choice(), Choice("step"), Choice("loop"), Choice("off")
    found.ratios = {now: 1.0, slower: 0.5, hardly: 1.005}
    assert found.best() == now
    found.ratios[faster] = 1.2
    assert found.best() == faster
