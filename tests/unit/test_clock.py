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

    monotonic = time


@pytest.fixture
def wall(monkeypatch):
    wall = Wall()
    monkeypatch.setattr(clock, "time", wall)
    return wall


@pytest.fixture
def started(wall, tmp_path):
    """Starts a clock on a state, from a step."""

    def start(times, step=0, **options):
        found = Clock(times, str(tmp_path))
        found.start(step, **options)
        return found

    return start


def restored(times, noted_by):
    """A fresh object with the values that a checkpoint would restore."""
    noted_by.note()
    fresh = Times()
    for old, new in zip(times.variables, fresh.variables, strict=True):
        new.assign(old)
    return fresh


def test_a_new_run_has_no_rate_and_no_goodput(wall, started):
    fresh = started(Times())
    assert (fresh.steps_per_second, fresh.train_seconds, fresh.goodput) == (0.0, 0.0, 0.0)


def test_the_first_call_traces_and_is_not_in_the_rate(wall, started):
    measured = started(Times())
    measured.loop_took(1, 9.0)
    assert (measured.steps_per_second, measured.train_seconds) == (0.0, 9.0)
    measured.loop_took(30, 2.0)
    measured.loop_took(10, 2.0)
    assert (measured.steps_per_second, measured.train_seconds) == (10.0, 13.0)


def test_a_restart_goes_on_counting_and_leaves_its_own_first_call_out(wall, started):
    times = Times()
    before = started(times)
    before.loop_took(1, 5.0)
    before.loop_took(10, 1.0)
    after = started(restored(times, before))
    assert after.steps_per_second == 10.0
    after.loop_took(1, 7.0)
    after.loop_took(30, 1.0)
    assert (after.steps_per_second, after.train_seconds) == (20.0, 14.0)


def test_goodput_counts_the_time_between_two_starts_as_lost(wall, started):
    times = Times()
    before = started(times)
    wall.now += 10.0
    before.loop_took(1, 10.0)
    assert before.goodput == 1.0
    wall.now += 30.0
    after = started(restored(times, before))
    wall.now += 10.0
    after.loop_took(1, 10.0)
    assert after.goodput == 20.0 / 50.0


def test_goodput_stays_when_a_finished_run_is_looked_at_again(wall, started):
    measured = started(Times())
    wall.now += 20.0
    measured.loop_took(1, 10.0)
    wall.now += 1000.0
    assert measured.goodput == 0.5


def test_goodput_lies_in_zero_to_one_even_when_the_wall_clock_is_set_back(wall, started):
    measured = started(Times())
    wall.now += 1.0
    measured.loop_took(1, 10.0)
    assert measured.goodput == 1.0
    wall.now -= 500.0
    measured.loop_took(1, 10.0)
    assert measured.goodput == 0.0


# What kills cost


def test_a_restart_counts_the_steps_that_are_taken_again(wall, started):
    first = started(Times())
    assert first.figures == {"goodput": 0.0, "restarts": 0, "lost_steps": 0}
    for step in (40, 60):
        wall.now += 2.0
        first.beat(step)
    times = Times()  # as a checkpoint at step 50 has them
    assert started(times, 50).figures == {"goodput": 0.0, "restarts": 1, "lost_steps": 10}
    # Killed again before anything was saved: the state knows nothing of that.
    assert started(Times(), 50).figures["lost_steps"] == 10
    second = started(Times(), 50)
    assert second.figures["restarts"] == 3
    wall.now += 2.0
    second.beat(57)
    assert started(Times(), 50).figures["lost_steps"] == 17


def test_a_kill_before_the_first_checkpoint_loses_all_and_the_wall_time_counts(wall, started):
    started(Times()).beat(30, at_once=True)
    wall.now += 100.0
    again = started(Times())
    assert again.figures["restarts"] == 1 and again.figures["lost_steps"] == 30
    wall.now += 10.0
    again.loop_took(30, 10.0)
    assert again.goodput == 10.0 / 110.0


def test_looking_at_a_finished_run_is_no_restart(wall, started):
    times = Times()
    started(times).beat(30, at_once=True)
    assert started(times, 30, counts=False).figures["restarts"] == 0


def test_the_step_is_noted_once_a_second(wall, started, tmp_path):
    measured = started(Times())
    measured.beat(1)
    assert '"step": 0' in (tmp_path / "clock.json").read_text()
    wall.now += 1.0
    measured.beat(2)
    assert '"step": 2' in (tmp_path / "clock.json").read_text()


@pytest.mark.parametrize("content", ["", "torn", "[]", '{"step": "x"}', "{}"])
def test_a_torn_file_costs_the_figures_and_not_the_run(wall, started, tmp_path, content):
    (tmp_path / "clock.json").write_text(content)
    assert started(Times(), 5).figures["restarts"] == 1
    assert started(Times(), 5).figures["restarts"] == 2


def test_no_run_ends_for_want_of_a_figure(wall, tmp_path):
    measured = Clock(Times(), str(tmp_path / "gone"))
    measured.start(0)
    measured.beat(3, at_once=True)
