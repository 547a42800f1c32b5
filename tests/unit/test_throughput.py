"""Throughput without the first calls, and goodput since the first start."""

import pytest

from engine.core.state import TimingState
from engine.logging import throughput
from engine.logging.throughput import ThroughputMeter


class Wall:
    """Fake for the module `time`, whose clock the test sets."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    monotonic = time


@pytest.fixture
def wall(monkeypatch):
    wall = Wall()
    monkeypatch.setattr(throughput, "time", wall)
    return wall


@pytest.fixture
def started(wall, tmp_path):
    """Returns a function that starts a `ThroughputMeter` for a state, at a step."""

    def start(times, step=0, **options):
        found = ThroughputMeter(times, str(tmp_path))
        found.start(step, **options)
        return found

    return start


def restored(times, noted_by):
    """Returns a new timing state with the values that a checkpoint would restore."""
    noted_by.note()
    fresh = TimingState()
    for old, new in zip(times.variables, fresh.variables, strict=True):
        new.assign(old)
    return fresh


def test_new_run(wall, started):
    fresh = started(TimingState())
    assert (fresh.steps_per_second, fresh.train_seconds, fresh.goodput) == (0.0, 0.0, 0.0)


def test_input_wait(wall, started):
    """The share of waiting is that since the value before, without the first call."""
    measured = started(TimingState())
    measured.record_call(1, 9.0, 8.0)
    assert measured.input_wait() is None
    measured.record_call(30, 2.0, 0.5)
    measured.record_call(10, 2.0, 1.5)
    assert measured.input_wait() == 0.5
    assert measured.input_wait() is None
    measured.record_call(10, 4.0, 1.0)
    assert measured.input_wait() == 0.25


def test_rate_excludes_first_call(wall, started):
    measured = started(TimingState())
    measured.record_call(1, 9.0)
    assert (measured.steps_per_second, measured.train_seconds) == (0.0, 9.0)
    measured.record_call(30, 2.0)
    measured.record_call(10, 2.0)
    assert (measured.steps_per_second, measured.train_seconds) == (10.0, 13.0)


def test_restart_excludes_first_call(wall, started):
    times = TimingState()
    before = started(times)
    before.record_call(1, 5.0)
    before.record_call(10, 1.0)
    after = started(restored(times, before))
    assert after.steps_per_second == 10.0
    after.record_call(1, 7.0)
    after.record_call(30, 1.0)
    assert (after.steps_per_second, after.train_seconds) == (20.0, 14.0)


def test_goodput_counts_downtime(wall, started):
    times = TimingState()
    before = started(times)
    wall.now += 10.0
    before.record_call(1, 10.0)
    assert before.goodput == 1.0
    wall.now += 30.0
    after = started(restored(times, before))
    wall.now += 10.0
    after.record_call(1, 10.0)
    assert after.goodput == 20.0 / 50.0


def test_goodput_of_finished_run(wall, started):
    measured = started(TimingState())
    wall.now += 20.0
    measured.record_call(1, 10.0)
    wall.now += 1000.0
    assert measured.goodput == 0.5


def test_goodput_within_unit_interval(wall, started):
    measured = started(TimingState())
    wall.now += 1.0
    measured.record_call(1, 10.0)
    assert measured.goodput == 1.0
    wall.now -= 500.0
    measured.record_call(1, 10.0)
    assert measured.goodput == 0.0


# Cost of kills


def test_counts_lost_steps(wall, started):
    first = started(TimingState())
    assert first.figures == {"goodput": 0.0, "restarts": 0, "lost_steps": 0}
    for step in (40, 60):
        wall.now += 2.0
        first.beat(step)
    times = TimingState()  # as in a checkpoint of step 50
    assert started(times, 50).figures == {"goodput": 0.0, "restarts": 1, "lost_steps": 10}
    # Killed again before anything is saved: the state does not record that kill.
    assert started(TimingState(), 50).figures["lost_steps"] == 10
    second = started(TimingState(), 50)
    assert second.figures["restarts"] == 3
    wall.now += 2.0
    second.beat(57)
    assert started(TimingState(), 50).figures["lost_steps"] == 17


def test_kill_before_first_checkpoint(wall, started):
    started(TimingState()).beat(30, at_once=True)
    wall.now += 100.0
    again = started(TimingState())
    assert again.figures["restarts"] == 1 and again.figures["lost_steps"] == 30
    wall.now += 10.0
    again.record_call(30, 10.0)
    assert again.goodput == 10.0 / 110.0


def test_finished_run_is_no_restart(wall, started):
    times = TimingState()
    started(times).beat(30, at_once=True)
    assert started(times, 30, counts=False).figures["restarts"] == 0


def test_step_noted_every_second(wall, started, tmp_path):
    measured = started(TimingState())
    measured.beat(1)
    assert '"step": 0' in (tmp_path / "clock.json").read_text()
    wall.now += 1.0
    measured.beat(2)
    assert '"step": 2' in (tmp_path / "clock.json").read_text()


@pytest.mark.parametrize("content", ["", "torn", "[]", '{"step": "x"}', "{}"])
def test_damaged_clock_file(wall, started, tmp_path, content):
    (tmp_path / "clock.json").write_text(content)
    assert started(TimingState(), 5).figures["restarts"] == 1
    assert started(TimingState(), 5).figures["restarts"] == 2


def test_missing_directory(wall, tmp_path):
    measured = ThroughputMeter(TimingState(), str(tmp_path / "gone"))
    measured.start(0)
    measured.beat(3, at_once=True)
