"""Tests of law L8: evaluation scores each example of a split exactly once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.core.evaluation import Evaluation
from engine.core.evaluation_step import evaluation_step
from engine.tasks.metrics import Mean
from engine.tasks.task import Task, TaskOutput
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tests.choices import seldom
from tests.harness import pictures, same_bits, scaled, training

EXAMPLES = 37
IMAGES, LABELS = pictures(EXAMPLES, seed=1)


@pytest.fixture(scope="module")
def runs():
    return {replicas: training(IMAGES, LABELS, replicas=replicas).take(5) for replicas in (1, 2, 4)}


def reference(run) -> dict:
    """Returns "loss", the mean loss, and "right", the number of correct predictions, from NumPy."""
    logits = run.state.model(scaled(tf.constant(IMAGES))).numpy().astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(EXAMPLES), LABELS]
    return {"loss": losses.mean(), "right": int((logits.argmax(axis=1) == LABELS).sum())}


each_layout = pytest.mark.parametrize(
    ("replicas", "shards"), [(1, 0), (2, 0), seldom(4, 0), (2, 4)]
)
any_batch_size = given(batch=st.integers(1, EXAMPLES + 5))
some_of_them = settings(max_examples=4, derandomize=True)


@each_layout
@any_batch_size
@example(batch=1)
@example(batch=EXAMPLES)
@some_of_them
def test_metrics_for_any_batch_size(runs, replicas, shards, batch):
    """For any batch size, loss and accuracy match those computed in NumPy from the logits."""
    run = runs[replicas]
    means, expected = run.evaluate(IMAGES, LABELS, batch, shards), reference(run)
    assert means["examples"] == EXAMPLES
    assert round(means["accuracy"] * EXAMPLES) == expected["right"]
    assert means["accuracy"] == expected["right"] / EXAMPLES
    assert means["loss"] == pytest.approx(expected["loss"], rel=1e-5)


class Register(Task):
    """A task with a metric for each example, which is 1 for that example and 0 for all others.

    The label of an example must be the index of the example.
    """

    metrics = {f"example_{number}": Mean() for number in range(EXAMPLES)}  # noqa: RUF012

    def __call__(self, model, batch, context):
        number = tf.one_hot(batch.targets, EXAMPLES)
        values = tf.unstack(number, axis=1)
        metrics = {name: (each,) for name, each in zip(self.metrics, values, strict=True)}
        return TaskOutput(tf.ones_like(number[:, 0]), metrics)


@each_layout
@any_batch_size
@some_of_them
def test_every_example_scored_once(runs, replicas, shards, batch):
    run = dataclasses.replace(runs[replicas], task=Register())
    means = run.evaluate(IMAGES, np.arange(EXAMPLES, dtype=np.int32), batch, shards)
    assert means == {
        "loss": 1.0,
        **dict.fromkeys(Register.metrics, 1 / EXAMPLES),
        "examples": EXAMPLES,
    }


def test_evaluation_keeps_state(runs):
    run = runs[1]
    before = [variable.numpy() for variable in run.state.variables]
    run.evaluate(IMAGES, LABELS, 8)
    assert same_bits(before, [variable.numpy() for variable in run.state.variables])


def test_interrupted_evaluation_is_none():
    run = training(IMAGES, LABELS)
    plan = BatchPlan(examples=EXAMPLES, global_batch_size=4, layout=BatchLayout(), seed=None)
    feed = InMemoryFeed(IMAGES, LABELS, plan, run.strategy)
    step = evaluation_step(model=run.state.model, task=run.task, preprocess=scaled)
    calls = iter([False, True])
    evaluation = Evaluation(run.strategy, feed, step, run.task)
    assert evaluation.run(lambda: next(calls)) is None
