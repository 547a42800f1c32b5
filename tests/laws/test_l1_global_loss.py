"""Tests of law L1: the loss is the sum over valid examples divided by their global number."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.core.metrics import masked_sums, step_means
from engine.tasks.metrics import Mean
from engine.tasks.task import Task, TaskOutput
from pipelines import BatchLayout, InMemoryFeed
from pipelines.feeds.batch_layout import BatchPlan
from tapeline import models
from tests import rounding
from tests.harness import CLASSES, assert_rounding_apart, pictures, put_together, training
from tests.vectors import Weights


class Distance(Task):
    """A task whose loss is half the squared difference of a number and the model's only weight."""

    metrics: dict = {}  # noqa: RUF012

    def __call__(self, model, batch, context):
        numbers = tf.cast(tf.reshape(batch.inputs, [-1]), tf.float32)
        return TaskOutput(0.5 * tf.square(model.parts[0] - numbers))


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_global_mean_with_remainder(devices):
    """7 examples in batches of 4 give the closed-form weight on 1, 2 and 4 devices."""
    numbers, rate, epochs = np.array([3, 1, 4, 1, 5, 9, 2], np.float32), 0.1, 5
    layout = BatchLayout(devices)
    plan = BatchPlan(examples=7, global_batch_size=4, layout=layout, seed=None)
    run = put_together(
        lambda: Weights(2.0),
        lambda strategy: InMemoryFeed(
            numbers.reshape(7, 1, 1, 1), np.zeros(7, np.int32), plan, strategy
        ),
        Distance(),
        layout=layout,
        optimizer="sgd",
        learning_rate=rate,
    )
    run.take(2 * epochs)
    # A batch of mean m maps w to (1 - rate) w + rate m. An epoch has a batch of 4 rows and one of
    # 3, which count equally: w = q w + c per epoch.
    q, c = (1 - rate) ** 2, rate * ((1 - rate) * 9 / 4 + 16 / 3)
    wanted = q**epochs * 2.0 + c * (1 - q**epochs) / (1 - q)
    (found,) = run.weights()
    # Each of 10 steps rounds a weight below 4 by at most 2^-23; its gradient rounds less.
    assert float(found) == pytest.approx(wanted, rel=0, abs=2 * 10 * 2**-23)
    losses, _, examples = run.state.sums.numpy()[:3]
    assert examples == 7 * epochs and np.isfinite(losses)


class WeightedDistance(Distance):
    """`Distance` with example weights, computed by `weigh` from the numbers; weights may be 0."""

    metrics = {"number": Mean()}  # noqa: RUF012

    def __init__(self, weigh=lambda numbers: numbers % 3):
        self.weigh = weigh

    def __call__(self, model, batch, context):
        numbers = tf.cast(tf.reshape(batch.inputs, [-1]), tf.float32)
        losses = super().__call__(model, batch, context).losses
        weights = tf.where(batch.mask > 0, self.weigh(numbers), np.nan)  # of padding: any
        return TaskOutput(losses, {"number": (numbers,)}, weights)


def weighted(layout, jit="off", **options):
    numbers = np.array([3, 1, 4, 1, 5, 9, 2], np.float32)
    plan = BatchPlan(examples=7, global_batch_size=4, layout=layout, seed=None)
    return put_together(
        lambda: Weights(2.0),
        lambda strategy: InMemoryFeed(
            numbers.reshape(7, 1, 1, 1), np.zeros(7, np.int32), plan, strategy
        ),
        WeightedDistance(**options),
        layout=layout,
        optimizer="sgd",
        learning_rate=0.1,
        jit=jit,
    )


LAYOUTS = (
    BatchLayout(1),
    BatchLayout(2),
    BatchLayout(4),
    BatchLayout(1, 3),
    BatchLayout(2, 2),
    BatchLayout(2, 1, 4),
)


@pytest.mark.parametrize("jit", ["off", "loop"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout)))
def test_weighted_mean_is_global(layout, jit):
    """The gradient is divided by the sum of the example weights of the global batch."""
    if jit == "loop" and layout.replicas > 1:
        layout = BatchLayout(1, layout.micro_batches)
    rate, epochs = 0.1, 5
    run = weighted(layout, jit)
    run.take(2 * epochs)
    # The weights are 0, 1, 1, 1 and 2, 0, 2: means of 6/3 and 14/4.
    q, c = (1 - rate) ** 2, rate * ((1 - rate) * 2 + 3.5)
    (found,) = run.weights()
    expected = q**epochs * 2.0 + c * (1 - q**epochs) / (1 - q)
    assert float(found) == pytest.approx(expected, rel=0, abs=2 * 10 * 2**-22)
    means = step_means(run.state.sums.numpy(), run.task.metrics)
    assert means["number"] == pytest.approx(20 / 7, rel=1e-6)
    assert means["examples"] == 7 * epochs


def test_weights_that_add_up_to_nothing():
    """A step whose example weights are all 0 is not finite and updates nothing."""
    run = weighted(BatchLayout(1), weigh=tf.zeros_like)
    assert not run.loop.run(1).finite
    assert int(run.state.updates) == 0 and float(run.weights()[0]) == 2.0


@pytest.mark.parametrize(
    "layout",
    [
        BatchLayout(1),
        BatchLayout(2),
        BatchLayout(4),
        BatchLayout(1, 3),
        BatchLayout(2, 3),
        BatchLayout(2, 1, 4),
    ],
    ids=lambda layout: "-".join(map(str, layout)),
)
def test_nan_stays_in_its_step(layout):
    """A NaN in an example makes only the step of that example bad, for any layout with padding."""
    images, labels = pictures(37)
    images = images.astype(np.float32)
    images[[0, 16], 2, 3] = np.nan  # rows that padding would repeat
    run = training(
        images,
        labels,
        batch=8,
        shuffle=False,
        replicas=layout.replicas,
        accumulate=layout.micro_batches,
        shards=layout.shards,
    )
    good = [run.loop.run(1).finite for _ in range(5)]
    assert good == [False, True, False, True, True]


def logistic():
    return [models.Flatten(), models.Dense(CLASSES)]


def reference_weights(images, labels, batch, steps, rate):
    """Returns the weights after gradient descent on batch means in float64, in file order."""
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
def test_partial_batch_mean(examples, replicas):
    """Training with a partial batch matches float64 gradient descent on batch means."""
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
def test_indivisible_batch(batch, replicas):
    """A batch size that the replicas do not divide omits and repeats no example."""
    options = {"batch": batch, "network": logistic, "optimizer": "sgd"}
    alone, many = (training(*pictures(17), replicas=n, **options) for n in (1, replicas))
    path = alone.take_measured(9)
    many.take(9)
    assert_rounding_apart(alone, many, path, optimizer="sgd", batch=batch, switches=False)
    assert np.array_equal(alone.state.sums.numpy()[-1], many.state.sums.numpy()[-1])


def test_nan_padding_is_masked():
    """Padding rows with NaN and infinite losses add nothing to the metric sums."""
    losses = tf.constant([1.0, 2.0, np.nan, np.inf])
    output = TaskOutput(losses, {"mean": (losses,)})
    sums = masked_sums(output, tf.constant([1.0, 1.0, 0.0, 0.0]), {"mean": Mean()})
    assert sums.numpy().tolist() == [3.0, 2.0, 2.0, 3.0, 2.0]
