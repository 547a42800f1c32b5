"""Statistics that a pass over the training split makes again, against means by NumPy."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapeline
from engine.core.statistics_pass import StatisticsPass
from engine.models.base import ForwardContext, Layer, StatisticUpdate
from engine.models.properties import statistics
from engine.models.stateless_random import StatelessRNG
from engine.tasks.classification import Classification
from pipelines import order
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tapeline import models
from tests.harness import CLASSES, Training, pictures, put_together, same_bits, scaled, training

EXAMPLES, BATCH = 44, 16  # the last batch is partial
IMAGES, LABELS = pictures(EXAMPLES)
STEPS = 7  # of training before the pass


class Moving(Layer):
    """A layer with statistics of its inputs, which it proposes without the values of the batch.

    `average` is a moving average of the mean input, `largest` the largest mean so far and `calls`
    the number of batches.
    """

    kind = "moving"

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum

    def build(self, input_shape, initializer):
        self.average = initializer.statistic("average", input_shape[-1:], 0.5)
        self.largest = initializer.statistic("largest", input_shape[-1:], 0.0)
        self.calls = initializer.statistic("calls", (), 3.0)
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        if not context.training:
            return x - self.average
        axes = list(range(x.shape.rank - 1))
        mask = tf.reshape(context.mask, [-1] + [1] * (x.shape.rank - 1))
        rows = tf.reduce_sum(context.mask)
        count = rows * float(np.prod(x.shape[1:-1]))
        total, count = context.all_reduce([tf.reduce_sum(x * mask, axes), count])
        mean = tf.stop_gradient(total / tf.maximum(count, 1.0))
        for variable, value in (
            (self.average, self.average * self.momentum + mean * (1 - self.momentum)),
            (self.largest, tf.maximum(self.largest, mean)),
            (self.calls, self.calls + 1),
        ):
            context.updates.append(StatisticUpdate(variable, value, rows))
        return x - mean


def network() -> list[Layer]:
    return [
        models.Convolution(4, activation="relu"),
        models.BatchNorm(momentum=0.97),
        models.Residual(models.Convolution(4, 3, padding="SAME"), models.BatchNorm(), Moving(0.97)),
        models.Flatten(),
        models.Dropout(0.5),
        models.Dense(8),
        models.BatchNorm(momentum=0.5),
        models.Dense(CLASSES),
    ]


def made(**options) -> Training:
    """Returns a training of `network` after some steps, which moves the statistics."""
    return training(IMAGES, LABELS, batch=BATCH, network=network, **options).take(STEPS)


def renewed(run: Training, **options) -> bool:
    passed = StatisticsPass(
        strategy=run.strategy,
        feed=run.feed,
        model=run.state.model,
        task=run.task,
        seed=0,
        preprocess=scaled,
    )
    return passed.run(**options)


def values_of(run: Training) -> dict[str, np.ndarray]:
    return {each.name: each.numpy() for each in statistics(run.state.model)}


def batches() -> list[np.ndarray]:
    """Returns the scaled images of each batch of the first epoch, float32."""
    shuffled = (IMAGES[order.permutation(0, 0, EXAMPLES)] / 255).astype(np.float32)
    return [shuffled[start : start + BATCH] for start in range(0, EXAMPLES, BATCH)]


def expected(run: Training) -> dict[str, np.ndarray]:
    """Returns the mean of the batch values of each statistic, by calls of the model on batches.

    Moving averages of `Moving` get the momentum 0 for these calls.
    """
    model = run.state.model
    found: dict[str, list[np.ndarray]] = {}
    moving = [each for each in model.submodules if isinstance(each, Moving)]
    momenta = [each.momentum for each in moving]
    for each in moving:
        each.momentum = 0.0
    for step, images in enumerate(batches()):
        context = ForwardContext(
            training=True,
            mask=tf.ones([len(images)]),
            noise=StatelessRNG(0, tf.constant(step, tf.int64)),
        )
        model(tf.constant(images), context)
        for update in context.updates:
            value = update.value if update.batch is None else update.batch
            found.setdefault(update.variable.name, []).append(value.numpy().astype(np.float64))
    for each, momentum in zip(moving, momenta, strict=True):
        each.momentum = momentum
    sizes = [len(images) for images in batches()]
    return {name: np.average(values, 0, sizes) for name, values in found.items()}


def after_convolution(run: Training) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over the batches of mean and variance after the first layer, by NumPy."""
    layer = run.state.model.layers[0]
    kernel, bias = layer.kernel.numpy().astype(np.float64), layer.bias.numpy()
    side = kernel.shape[0]
    moments, sizes = [], []
    for images in batches():
        windows = np.lib.stride_tricks.sliding_window_view(images[..., 0], (side, side), (1, 2))
        x = np.maximum(np.tensordot(windows, kernel[:, :, 0], 2) + bias, 0)
        moments.append((x.mean((0, 1, 2)), x.var((0, 1, 2))))
        sizes.append(len(images))
    mean, variance = (np.average(each, 0, sizes) for each in zip(*moments, strict=True))
    return mean, variance


@pytest.mark.parametrize("replicas", [1, 2])
def test_batch_norm_matches_numpy(replicas: int):
    """The mean over the batches of their mean and biased variance, as of PyTorch's update_bn."""
    run = made(replicas=replicas)
    mean, variance = after_convolution(run)
    weights = [each.numpy() for each in run.state.model.trainable_variables]
    norm = run.state.model.layers[1]
    assert np.abs(norm.moving_variance.numpy() - variance).max() > 0.1  # there is much to do
    assert renewed(run)
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, rtol=1e-5, atol=1e-7)
    assert same_bits(weights, [each.numpy() for each in run.state.model.trainable_variables])
    assert int(run.state.step) == STEPS


@pytest.mark.parametrize("replicas", [1, 2])
def test_all_statistics_match_calls_of_the_model(replicas: int):
    """Statistics of nested and of a user's layers; the pass finds the momentum of the latter."""
    run = made(replicas=replicas)
    wanted = expected(run)
    assert len(wanted) == 9
    assert renewed(run)
    for name, value in values_of(run).items():
        np.testing.assert_allclose(value, wanted[name], rtol=2e-4, atol=1e-5, err_msg=name)


def test_statistics_are_the_same_on_all_replicas():
    run = made(replicas=2)
    renewed(run)
    for variable in statistics(run.state.model):
        one, other = run.strategy.experimental_local_results(variable)
        assert same_bits([one.numpy()], [other.numpy()])


@pytest.mark.parametrize("layout", [{"shards": 2}, {"shards": 4, "accumulate": 2}])
def test_virtual_shards_keep_bits(layout: dict[str, int]):
    """With shards, one and two devices give the same bits."""
    one, two = (made(replicas=replicas, **layout) for replicas in (1, 2))
    for run in (one, two):
        assert renewed(run)
    assert same_bits([*values_of(one).values()], [*values_of(two).values()])


def test_repeated_pass_keeps_bits():
    """The result does not depend on the statistics before, and dropout is that of the steps."""
    one, other = made(), made()
    renewed(one)
    renewed(other)
    first = values_of(one)
    assert same_bits([*first.values()], [*values_of(other).values()])
    for variable in statistics(other.state.model):
        if "batch_norm" in variable.name:
            variable.assign(tf.ones_like(variable) * 0.25)
    renewed(other)
    for name, value in values_of(other).items():
        if "batch_norm" in name:
            np.testing.assert_allclose(value, first[name], rtol=1e-4, atol=1e-6)


def keras_network() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="tanh")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    inner = keras.Sequential([keras.layers.Flatten(), keras.layers.BatchNormalization()])
    return tapeline.keras(keras.Model(inputs, keras.layers.Dense(CLASSES)(inner(x))))


def of_keras(make: Callable[[], keras.Model], replicas: int) -> Training:
    layout = BatchLayout(replicas)
    plan = BatchPlan(examples=EXAMPLES, global_batch_size=BATCH, layout=layout, seed=0)
    keras.utils.set_random_seed(0)
    return put_together(
        make,
        lambda strategy: InMemoryFeed(IMAGES, LABELS, plan, strategy),
        Classification(),
        layout=layout,
    ).take(STEPS)


@pytest.mark.parametrize("replicas", [1, 2])
def test_keras_model(replicas: int):
    run = of_keras(keras_network, replicas)
    wanted = expected(run)
    assert renewed(run) and len(wanted) == 4
    for name, value in values_of(run).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_shared_keras_layer():
    """A batch norm that is called twice moves twice; its value is where its moves come to rest."""

    def shared() -> keras.Model:
        inputs, norm = keras.Input((8, 8, 1)), keras.layers.BatchNormalization(momentum=0.8)
        x = norm(keras.layers.Rescaling(2.0, offset=1.0)(norm(inputs)))
        return tapeline.keras(
            keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)))
        )

    run = of_keras(shared, 1)
    first = [each.astype(np.float64) for each in batches()]
    assert renewed(run)
    values = {each.name.split("/")[-1][:-2]: each.numpy() for each in run.state.model.variables}
    beta, moving_mean = values["beta"], values["moving_mean"]
    # The second call gets 2 (gamma * normalized + beta) + 1, whose mean is 2 beta + 1.
    means = np.average([each.mean() for each in first], 0, [len(each) for each in first])
    np.testing.assert_allclose(moving_mean, (0.8 * means + 2 * beta + 1) / 1.8, rtol=1e-4)


def test_interrupted_pass_changes_nothing():
    run, advanced = made(), []
    before = values_of(run)
    assert not renewed(run, interrupted=lambda: len(advanced) > 0, advance=advanced.append)
    assert advanced
    assert same_bits([*before.values()], [*values_of(run).values()])


def test_refuses_infinite_statistics():
    run = made()
    kernel = run.state.model.layers[0].kernel
    kernel.assign(tf.fill(kernel.shape, np.inf))
    with pytest.raises(ValueError, match="is not finite after a pass over the training split"):
        renewed(run)


def test_progress():
    run, steps = made(), []
    renewed(run, advance=steps.append)
    assert sum(steps) == run.feed.steps_per_epoch == 3
