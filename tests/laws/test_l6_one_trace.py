"""L6: N steps in one graph, N a tensor: a run traces each function once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf

from engine.evaluate import Evaluation
from engine.points import NEVER, Points
from engine.step import evaluation_step
from pipelines.plan import Layout, Plan
from pipelines.resident import Resident
from tests.harness import pictures, same_bits, training


@pytest.mark.parametrize("replicas", [1, 2])
def test_any_number_of_steps_and_any_epoch_use_the_same_trace(replicas):
    images, labels = pictures(30)
    run = training(images, labels, replicas=replicas)
    for steps in (1, 2, 1, 4, 3, 4):
        run.take(steps)
    assert run.loop.traces == 1


def test_evaluation_is_traced_once():
    images, labels = pictures(30)
    run = training(images, labels)
    plan = Plan(examples=30, global_batch_size=4, layout=Layout(), seed=None)
    feed = Resident(images, labels, plan, run.strategy)
    step = evaluation_step(model=run.state.model, task=run.task)
    evaluation = Evaluation(run.strategy, feed, step, run.task)
    first = evaluation.run()
    assert evaluation.run() == first
    assert evaluation.traces == 1


def test_how_steps_are_portioned_does_not_change_a_bit():
    images, labels = pictures(30)
    singly, together = training(images, labels), training(images, labels)
    for _ in range(12):
        singly.take(1)
    together.take(12)
    assert same_bits(singly.weights(), together.weights())


@pytest.mark.parametrize("steps", [0, -1, -3000])
def test_a_call_that_is_asked_for_no_step_raises_at_once(steps):
    run = training(*pictures(30)).take(2)
    with pytest.raises(ValueError, match="must be 1 or more"):
        run.loop.run(steps)
    assert int(run.state.step) == 2


@pytest.mark.parametrize("at", [Points(last=1), Points(last=2), Points(last=3), Points(every=0)])
def test_a_call_beyond_its_last_point_raises_at_once(at):
    run = training(*pictures(30)).take(2)
    with pytest.raises(ValueError, match="point"):
        run.loop.run(2, at)
    assert int(run.state.step) == 2


def test_a_call_past_the_end_of_an_epoch_raises_at_once():
    run = training(*pictures(30)).take(2)  # of 4
    with pytest.raises(ValueError, match="one epoch"):
        run.loop.run(3)


@pytest.mark.parametrize("given", [0, -1, 4])
def test_a_feed_that_gives_no_step_or_too_many_raises_at_once(monkeypatch, given):
    run = training(*pictures(30))
    opened = run.feed.open
    monkeypatch.setattr(
        run.feed, "open", lambda step, steps: opened(step, steps)._replace(steps=given)
    )
    with pytest.raises(RuntimeError, match=f"asked for 3 steps and gave {given}"):
        run.loop.run(3)


def test_the_loop_in_the_graph_ends_whatever_points_it_is_given():
    """The host refuses such points; a loop in the graph hears no signal, so it must end itself."""
    run = training(*pictures(30)).take(2)
    given = run.feed.open(2, 2).given
    for every, last in ((NEVER, 1), (NEVER, -3000), (NEVER, 2)):
        asked = tf.constant(np.array([1, every, last], np.int64))
        call = threading.Thread(target=run.loop._compiled, args=(asked, given), daemon=True)
        call.start()
        call.join(120)
        assert not call.is_alive(), f"no step is ever taken towards point {last}"
