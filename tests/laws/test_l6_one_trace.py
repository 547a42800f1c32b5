"""L6: N steps in one graph, N a tensor: a run traces each function once."""

from __future__ import annotations

import pytest

from engine.evaluate import Evaluation
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
