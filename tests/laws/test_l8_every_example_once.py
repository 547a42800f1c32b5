"""L8: evaluation covers the whole split, for any batch size and replica count."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluate import Evaluation
from engine.step import evaluation_step
from pipelines.plan import Layout, Plan
from pipelines.resident import Resident
from tests.harness import pictures, same_bits, training

EXAMPLES = 37
IMAGES, LABELS = pictures(EXAMPLES, seed=1)


@pytest.fixture(scope="module")
def runs():
    return {replicas: training(IMAGES, LABELS, replicas=replicas).take(5) for replicas in (1, 2, 4)}


def reference(run) -> dict:
    """The same from saved predictions, in NumPy."""
    logits = run.state.model(tf.constant(IMAGES)).numpy().astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(EXAMPLES), LABELS]
    return {"loss": losses.mean(), "right": int((logits.argmax(axis=1) == LABELS).sum())}


@pytest.mark.parametrize("replicas", [1, 2, 4])
@given(batch=st.integers(1, EXAMPLES + 5))
@settings(deadline=None, max_examples=8, derandomize=True)
def test_every_example_is_scored_once_for_any_batch_size(runs, replicas, batch):
    run = runs[replicas]
    means, expected = run.evaluate(IMAGES, LABELS, batch), reference(run)
    assert means["examples"] == EXAMPLES
    assert round(means["accuracy"] * EXAMPLES) == expected["right"]
    assert means["accuracy"] == expected["right"] / EXAMPLES
    assert means["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_evaluation_leaves_the_state_as_it_was(runs):
    run = runs[1]
    before = [variable.numpy() for variable in run.state.variables]
    run.evaluate(IMAGES, LABELS, 8)
    assert same_bits(before, [variable.numpy() for variable in run.state.variables])


def test_an_interrupted_evaluation_gives_nothing():
    run = training(IMAGES, LABELS)
    plan = Plan(examples=EXAMPLES, global_batch_size=4, layout=Layout(), seed=None)
    feed = Resident(IMAGES, LABELS, plan, run.strategy)
    step = evaluation_step(model=run.state.model, task=run.task)
    calls = iter([False, True])
    evaluation = Evaluation(run.strategy, feed, step, run.task)
    assert evaluation.run(lambda: next(calls)) is None
