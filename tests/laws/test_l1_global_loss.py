"""L1: summed over valid examples, divided by the global number of valid examples."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import models
from engine.metrics import masked_sums
from engine.task import Scores
from pipelines import Layout, Resident
from pipelines.plan import Plan
from tests import rounding
from tests.harness import CLASSES, assert_rounding_apart, pictures, put_together, training
from tests.vectors import Weights


class Distance:
    """Half the squared distance of a number from the only weight: w goes to the numbers' mean."""

    metrics: tuple[str, ...] = ()

    def __call__(self, model, batch, call):
        numbers = tf.cast(tf.reshape(batch.inputs, [-1]), tf.float32)
        return Scores(0.5 * tf.square(model.parts[0] - numbers), ())


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_7_rows_in_batches_of_4_end_at_the_same_weight_on_1_2_and_4_devices(devices):
    numbers, rate, epochs = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8), 0.1, 5
    layout = Layout(devices)
    plan = Plan(examples=7, global_batch_size=4, layout=layout, seed=None)
    run = put_together(
        lambda: Weights(2.0),
        lambda strategy: Resident(
            numbers.reshape(7, 1, 1, 1), np.zeros(7, np.int32), plan, strategy
        ),
        Distance(),
        layout=layout,
        optimizer="sgd",
        learning_rate=rate,
    )
    run.take(2 * epochs)
    # A batch of mean m makes (1 - rate) w + rate m of w. An epoch does it with the mean of 4 rows
    # and with the mean of 3, which weigh no less for being fewer: w = q w + c, and so on.
    q, c = (1 - rate) ** 2, rate * ((1 - rate) * 9 / 4 + 16 / 3)
    wanted = q**epochs * 2.0 + c * (1 - q**epochs) / (1 - q)
    (found,) = run.weights()
    # Each of 10 steps rounds a weight below 4 by at most 2^-23, and its gradient less.
    assert float(found) == pytest.approx(wanted, rel=0, abs=2 * 10 * 2**-23)
    losses, examples = run.state.sums.numpy()[:2]
    assert examples == 7 * epochs and np.isfinite(losses)


@pytest.mark.parametrize(
    "layout",
    [Layout(1), Layout(2), Layout(4), Layout(1, 3), Layout(2, 3), Layout(2, 1, 4)],
    ids=lambda layout: "-".join(map(str, layout)),
)
def test_a_nan_in_an_example_comes_into_no_step_but_its_own(layout):
    """Padding is there to be computed and not to count: zero times nan is nan."""
    images, labels = pictures(37)
    images = images.astype(np.float32)
    images[[0, 16], 2, 3] = np.nan  # what the last batch's padding and the second's would show
    run = training(
        images,
        labels,
        batch=8,
        shuffle=False,
        replicas=layout.replicas,
        accumulate=layout.micro_batches,
        shards=layout.shards,
    )
    good = [run.loop.run(1).good for _ in range(5)]
    assert good == [False, True, False, True, True]


def logistic():
    return [models.Flatten(), models.Dense(CLASSES)]


def reference_weights(images, labels, batch, steps, rate):
    """Gradient descent on the mean loss of each batch, in float64, batches in file order."""
    kernel, bias = [w.astype(np.float64) for w in initial_weights(images, labels)]
    inputs = images.reshape(len(images), -1) / 255.0
    per_epoch = -(-len(images) // batch)
    for step in range(steps):
        rows = slice(step % per_epoch * batch, (step % per_epoch + 1) * batch)
        x, y = inputs[rows], np.eye(CLASSES)[labels[rows]]
        logits = x @ kernel + bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        kernel = kernel - rate * x.T @ (p - y) / len(x)
        bias = bias - rate * (p - y).mean(axis=0)
    return kernel, bias


def initial_weights(images, labels):
    made = training(images, labels, network=logistic)
    weights = {v.name.split("/")[-1]: v.numpy() for v in made.state.model.trainable_variables}
    return weights["kernel:0"], weights["bias:0"]


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("examples", [7, 8, 9, 5])
def test_a_partial_batch_weighs_as_its_examples_do_on_any_number_of_replicas(examples, replicas):
    images, labels = pictures(examples)
    made = training(
        images,
        labels,
        replicas=replicas,
        batch=4,
        optimizer="sgd",
        learning_rate=0.1,
        network=logistic,
        shuffle=False,
    )
    path = made.take_measured(6)
    wanted = reference_weights(images, labels, batch=4, steps=6, rate=0.1)
    moves = rounding.of_sums(*rounding.lengths(made.state.model, 4))
    for value, name in zip(wanted, ("kernel", "bias"), strict=True):
        (found,) = (v for v in made.state.model.variables if v.name.endswith(f"/{name}:0"))
        allowed = rounding.of_weights(moves, path[found.name], float(np.linalg.norm(value)), 6)
        assert np.linalg.norm(found.numpy() - value) <= allowed, name


@pytest.mark.parametrize(("batch", "replicas"), [(6, 4), (7, 2), (3, 4)])
def test_a_batch_that_the_replicas_do_not_divide_loses_and_doubles_no_example(batch, replicas):
    options = {"batch": batch, "network": logistic, "optimizer": "sgd"}
    alone, many = (training(*pictures(17), replicas=n, **options) for n in (1, replicas))
    path = alone.take_measured(9)
    many.take(9)
    assert_rounding_apart(alone, many, path, optimizer="sgd", batch=batch, switches=False)
    assert np.array_equal(alone.state.sums.numpy()[-1], many.state.sums.numpy()[-1])


def test_padding_adds_nothing_even_where_its_loss_is_not_a_number():
    losses = tf.constant([1.0, 2.0, np.nan, np.inf])
    sums = masked_sums(Scores(losses, (losses,)), tf.constant([1.0, 1.0, 0.0, 0.0]))
    assert sums.numpy().tolist() == [3.0, 3.0, 2.0]
