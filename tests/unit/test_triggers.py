"""Steps at which the trainer logs, saves a checkpoint and ends an epoch."""

from __future__ import annotations

import pytest

from engine.trainer.triggers import Triggers


def made(**options: int) -> Triggers:
    return Triggers(
        **{
            "steps_per_epoch": 10,
            "evaluate_every": 10,
            "total_steps": 25,
            "log_every": 4,
            "save_every": 6,
            **options,
        }
    )


def test_meets_every_trigger_once():
    triggers = made()
    step, logged, saved, ended = 0, [], [], []
    while step < 25:
        save, end = triggers.due(step)
        log = triggers.points(step).after(step)
        taken = min(log, save, end)
        step += taken
        for places, due in ((logged, log), (saved, save), (ended, end)):
            if taken == due:
                places.append(step)
    assert logged == [4, 8, 10, 12, 16, 20, 24, 25]
    assert saved == [6, 12, 18, 24]
    assert ended == [10, 20, 25]
    # The end of a command is the end of an epoch only if both are at the same step.
    assert [s for s in range(1, 26) if triggers.evaluates(s)] == [10, 20]
    assert [s for s in range(1, 26) if triggers.logs(s)] == [4, 8, 12, 16, 24]


def test_no_save_within_epoch():
    assert made(save_every=0).due(3).save > 25


@pytest.mark.parametrize(("step", "epoch"), [(0, 1), (1, 1), (10, 1), (11, 2), (25, 3)])
def test_epoch_of_step(step, epoch):
    """An epoch includes the step at which it ends, but not the step at which it starts."""
    assert made().epoch(step) == epoch
    assert made().epochs == 3


@pytest.mark.parametrize("step", [25, 26, 3017, -1])
def test_no_step_left(step):
    for method in (made().due, made().points):
        with pytest.raises(ValueError, match="no step left to take"):
            method(step)


@pytest.mark.parametrize(
    "wrong",
    [{"steps_per_epoch": 0}, {"total_steps": 0}, {"total_steps": -5}, {"log_every": -1}],
)
def test_checks_lengths(wrong):
    with pytest.raises(ValueError, match="must be at least"):
        made(**wrong)
