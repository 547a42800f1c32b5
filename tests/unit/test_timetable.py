"""What is due at which step."""

from __future__ import annotations

import pytest

from engine.training.timetable import Timetable


def made(**options: int) -> Timetable:
    return Timetable(
        **{"steps_per_epoch": 10, "total_steps": 25, "log_every": 4, "save_every": 6, **options}
    )


def test_a_walk_from_one_to_the_next_meets_every_one_once():
    timetable = made()
    step, logged, saved, ended = 0, [], [], []
    while step < 25:
        save, end = timetable.due(step)
        log = timetable.points(step).after(step)
        taken = min(log, save, end)
        step += taken
        for places, due in ((logged, log), (saved, save), (ended, end)):
            if taken == due:
                places.append(step)
    assert logged == [4, 8, 10, 12, 16, 20, 24, 25]
    assert saved == [6, 12, 18, 24]
    assert ended == [10, 20, 25]
    # The end of a command is not the end of an epoch, unless one lies there.
    assert [s for s in range(1, 26) if timetable.ends_epoch(s)] == [10, 20]
    assert [s for s in range(1, 26) if timetable.logs(s)] == [4, 8, 12, 16, 24]


def test_nothing_is_saved_inside_an_epoch_when_nobody_asked():
    assert made(save_every=0).due(3).save > 25


@pytest.mark.parametrize(("step", "epoch"), [(0, 1), (1, 1), (10, 1), (11, 2), (25, 3)])
def test_an_epoch_has_its_last_step_and_not_the_one_it_starts_from(step, epoch):
    assert made().epoch(step) == epoch
    assert made().epochs == 3


@pytest.mark.parametrize("step", [25, 26, 3017, -1])
def test_nothing_is_due_where_no_step_is_left(step):
    for method in (made().due, made().points):
        with pytest.raises(ValueError, match="no step left to take"):
            method(step)


@pytest.mark.parametrize(
    "wrong",
    [{"steps_per_epoch": 0}, {"total_steps": 0}, {"total_steps": -5}, {"log_every": -1}],
)
def test_lengths_are_checked_where_they_come_in(wrong):
    with pytest.raises(ValueError, match="must be at least"):
        made(**wrong)
