"""Tests that log points do not depend on how steps are divided into calls of the graph."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.core.log_points import MOST, LogPoints
from engine.trainer.train_logging import current_log_point, metric_rows
from engine.verify.trajectory import take
from tests.choices import seldom
from tests.laws.product import assembled

OPTIONS = {"train_split": "train[:77]", "global_batch_size": 18, "schedule": "cosine"}
EPOCH = 5  # steps
WAYS = [
    {"model": "law_norm"},
    seldom({"model": "law_norm", "replicas": 2}),
    {"model": "logistic", "jit": "loop"},
]


def rows_by_calls(parts, calls, every):
    """Trains an epoch in calls of the given lengths; returns the rows of all log points.

    Asserts that the log points are the multiples of `every` and the end of the epoch.
    """
    rows = []
    for steps in calls:
        step = int(parts.state.step)
        taken = parts.loop.run(steps, LogPoints(every, EPOCH))
        assert [point.step for point in taken.points] == [
            each for each in range(step + 1, step + steps + 1) if each % every == 0 or each == EPOCH
        ]
        if taken.points:
            rows += metric_rows(parts, taken.points)
    return rows


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_log_points_for_any_calls(tmp_path, options):
    """The logged rows are the same for any number of steps per call."""
    for every in (1, 2):
        portioned(tmp_path, options, every)


def portioned(tmp_path, options, every):
    found = []
    parts = assembled(str(tmp_path), **OPTIONS, **options)
    start = [(variable, variable.numpy()) for variable in parts.state.variables]
    for calls in ([1] * EPOCH, [EPOCH], [2, 3]):
        for variable, value in start:
            variable.assign(value)
        found.append(rows_by_calls(parts, calls, every))
        assert int(parts.state.last_logged_step) == EPOCH
    assert parts.traces == {"train": 1}
    assert all(rows == found[0] for rows in found)
    parts.close()


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_log_point_interval(tmp_path, options):
    """The means of a log point are over the steps since the previous log point."""
    parts = assembled(str(tmp_path), **OPTIONS, **options)
    single = assembled(str(tmp_path), **OPTIONS, **options)
    points = parts.loop.run(EPOCH, LogPoints(2, EPOCH)).points
    rows = dict(metric_rows(parts, points))
    sums = [np.zeros_like(single.state.sums)]
    for step in range(EPOCH):
        take(single, 1)
        sums.append(single.state.sums.numpy())
        if (row := rows.get(step + 1)) is not None:
            since = sums[-1] - sums[step + 1 - (2 if (step + 1) % 2 == 0 else 1)]
            assert row["examples"] == since[2]
            assert row["loss"] == pytest.approx(since[0] / since[2], rel=1e-12)
            assert row["gradient_norm"] == pytest.approx(since[-2] / since[-1], rel=1e-12)
            rate = float(single.schedule(tf.constant(step, tf.int64)))
            assert row["learning_rate"] == pytest.approx(rate, rel=1e-12)
    assert sorted(rows) == [2, 4, 5]
    for each in (parts, single):
        each.close()


def test_current_log_point_matches_last_point(tmp_path):
    """`current_log_point` returns the last log point of the previous call."""
    parts = assembled(str(tmp_path), **OPTIONS, model="law_norm", precision="mixed_float16")
    *_, point = parts.loop.run(EPOCH, LogPoints(2, EPOCH)).points
    found = current_log_point(parts)
    assert found[:-1] == point[:-1]
    assert np.array_equal(found.sums, point.sums)
    parts.close()


def test_most_steps():
    """A call of `most_steps` steps passes at most `MOST` log points."""
    for every, last, step in ((1, 10_000, 0), (3, 10_000, 7), (100, 1 << 62, 99)):
        points = LogPoints(every, last)
        most = min(points.most_steps(step), 5_000)
        passed = [each for each in range(step + 1, step + most + 1) if each % every == 0]
        assert len(passed) <= MOST
    assert LogPoints(10, 25).after(20) == 5 and LogPoints(10, 25).after(9) == 1
