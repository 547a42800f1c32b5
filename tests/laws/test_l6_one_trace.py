"""Tests of law L6: one graph runs any number of steps, and a run traces each function once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf

from engine.core.evaluation import Evaluation
from engine.core.evaluation_step import evaluation_step
from engine.core.log_points import NEVER, LogPoints
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tests.harness import pictures, same_bits, scaled, training


@pytest.mark.parametrize("replicas", [1, 2])
def test_training_is_traced_once(replicas):
    """The training loop is traced once for calls of different lengths in different epochs."""
    images, labels = pictures(30)
    run = training(images, labels, replicas=replicas)
    for steps in (1, 2, 1, 4, 3, 4):
        run.take(steps)
    assert run.loop.traces == 1


def test_evaluation_is_traced_once():
    images, labels = pictures(30)
    run = training(images, labels)
    plan = BatchPlan(examples=30, global_batch_size=4, layout=BatchLayout(), seed=None)
    feed = InMemoryFeed(images, labels, plan, run.strategy)
    step = evaluation_step(model=run.state.model, task=run.task, preprocess=scaled)
    evaluation = Evaluation(run.strategy, feed, step, run.task)
    first = evaluation.run()
    assert evaluation.run() == first
    assert evaluation.traces == 1


def test_steps_per_call_bitwise():
    """Twelve steps in single calls and in longer calls give bitwise equal weights."""
    images, labels = pictures(30)
    singly, together = training(images, labels), training(images, labels)
    for _ in range(12):
        singly.take(1)
    together.take(12)
    assert same_bits(singly.weights(), together.weights())


@pytest.mark.parametrize("steps", [0, -1, -3000])
def test_nonpositive_steps_raise(steps):
    run = training(*pictures(30)).take(2)
    with pytest.raises(ValueError, match="must be 1 or more"):
        run.loop.run(steps)
    assert int(run.state.step) == 2


@pytest.mark.parametrize(
    "at", [LogPoints(last=1), LogPoints(last=2), LogPoints(last=3), LogPoints(every=0)]
)
def test_invalid_log_points_raise(at):
    """A call past its last log point, or with a log interval of 0, raises ValueError."""
    run = training(*pictures(30)).take(2)
    with pytest.raises(ValueError, match="point"):
        run.loop.run(2, at)
    assert int(run.state.step) == 2


def test_steps_past_epoch_raise():
    run = training(*pictures(30)).take(2)  # of 4
    with pytest.raises(ValueError, match="one epoch"):
        run.loop.run(3)


@pytest.mark.parametrize("given", [0, -1, 4])
def test_wrong_feed_steps_raise(monkeypatch, given):
    """If a feed opens no step, or more steps than requested, the loop raises RuntimeError."""
    run = training(*pictures(30))
    opened = run.feed.open
    monkeypatch.setattr(
        run.feed, "open", lambda step, steps: opened(step, steps)._replace(steps=given)
    )
    with pytest.raises(RuntimeError, match=f"asked for 3 steps and gave {given}"):
        run.loop.run(3)


def test_graph_loop_terminates():
    """The loop in the graph ends even for log points that cannot be reached.

    `Loop.run` rejects such log points, but a signal could not interrupt an endless loop in the
    graph.
    """
    run = training(*pictures(30)).take(2)
    given = run.feed.open(2, 2).given
    for every, last in ((NEVER, 1), (NEVER, -3000), (NEVER, 2)):
        asked = tf.constant(np.array([1, every, last], np.int64))
        call = threading.Thread(target=run.loop._call, args=(asked, given), daemon=True)
        call.start()
        call.join(120)
        assert not call.is_alive(), f"no step is ever taken towards point {last}"
