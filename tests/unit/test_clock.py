"""The rate is of steady steps, and goodput of all the time since the first start."""

import pytest

from engine.keeping import clock
from engine.keeping.clock import Clock
from engine.state import Times


class Wall:
    """Stands for the module `time`: a clock that the test moves."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now


@pytest.fixture
def wall(monkeypatch):
    wall = Wall()
    monkeypatch.setattr(clock, "time", wall)
    return wall


def restored(times):
    """A fresh object with the values that a checkpoint would restore."""
    fresh = Times()
    for old, new in zip(times.variables, fresh.variables, strict=True):
        new.assign(old)
    return fresh


def test_a_new_run_has_no_rate_and_no_goodput(wall):
    fresh = Clock(Times())
    assert (fresh.steps_per_second, fresh.train_seconds, fresh.goodput) == (0.0, 0.0, 0.0)


def test_the_first_call_traces_and_is_not_in_the_rate(wall):
    measured = Clock(Times())
    measured.loop_took(1, 9.0)
    assert (measured.steps_per_second, measured.train_seconds) == (0.0, 9.0)
    measured.loop_took(30, 2.0)
    measured.loop_took(10, 2.0)
    assert (measured.steps_per_second, measured.train_seconds) == (10.0, 13.0)


def test_a_restart_goes_on_counting_and_leaves_its_own_first_call_out(wall):
    times = Times()
    before = Clock(times)
    before.loop_took(1, 5.0)
    before.loop_took(10, 1.0)
    after = Clock(restored(times))
    assert after.steps_per_second == 10.0
    after.loop_took(1, 7.0)
    after.loop_took(30, 1.0)
    assert (after.steps_per_second, after.train_seconds) == (20.0, 14.0)


def test_goodput_counts_the_time_between_two_starts_as_lost(wall):
    times = Times()
    before = Clock(times)
    wall.now += 10.0
    before.loop_took(1, 10.0)
    assert before.goodput == 1.0
    wall.now += 30.0
    after = Clock(restored(times))
    wall.now += 10.0
    after.loop_took(1, 10.0)
    assert after.goodput == 20.0 / 50.0


def test_goodput_stays_when_a_finished_run_is_looked_at_again(wall):
    measured = Clock(Times())
    wall.now += 20.0
    measured.loop_took(1, 10.0)
    wall.now += 1000.0
    assert measured.goodput == 0.5


def test_goodput_lies_in_zero_to_one_even_when_the_wall_clock_is_set_back(wall):
    measured = Clock(Times())
    wall.now += 1.0
    measured.loop_took(1, 10.0)
    assert measured.goodput == 1.0
    wall.now -= 500.0
    measured.loop_took(1, 10.0)
    assert measured.goodput == 0.0
