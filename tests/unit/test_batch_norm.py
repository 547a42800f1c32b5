"""Batch norm on one and several replicas, on CPU kernels and compiled by XLA, against float64."""

from __future__ import annotations

import functools
from math import sqrt

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from engine.distributed.reduction import all_reduce, reductions
from engine.models import batch_normalization
from engine.models.base import ForwardContext, Initializer
from engine.models.batch_norm import BatchNorm
from engine.models.tracing import nodes
from tapeline import models
from tests.harness import norm_network, pictures, strategy_of, training
from tests.rounding import UNIT, of_sums

RESULTS = ("output", "mean", "variance", "inputs", "scale", "offset")


def layer_of(channels: int, seed: int = 0) -> BatchNorm:
    layer, random = BatchNorm(), np.random.default_rng(seed)
    layer.build((channels,), Initializer(0, 0, layer.kind))
    layer.scale.assign(random.normal(size=channels))
    layer.offset.assign(random.normal(size=channels))
    return layer


def reference(x, upstream, mask, layer):
    """Returns output, moments and gradients in float64, by the textbook's formulas."""
    x, upstream = np.float64(x), np.float64(upstream)
    axes = tuple(range(x.ndim - 1))
    weight = np.float64(mask).reshape([-1] + [1] * (x.ndim - 1))
    count = max(weight.sum() * np.prod(x.shape[1:-1]), 1)
    mean = (x * weight).sum(axes) / count
    variance = (weight * (x - mean) ** 2).sum(axes) / count
    if not weight.any():
        variance += batch_normalization._OF_PADDING
    factor = 1 / np.sqrt(variance + layer.epsilon)
    normal, scale = (x - mean) * factor, np.float64(layer.scale)
    of_offset, of_scale = upstream.sum(axes), (upstream * normal).sum(axes)
    of_x = scale * factor * (upstream - weight * (of_offset + normal * of_scale) / count)
    return normal * scale + np.float64(layer.offset), mean, variance, of_x, of_scale, of_offset


def computed(layer, x, upstream, mask, *, replicas=1, compiled=False, shards=0, alone=True):
    """Returns the results of the layer in training as arrays, those of the replicas together.

    Args:
      layer: the layer.
      x: inputs, of which each replica gets an equal number of rows.
      upstream: gradient of the outputs.
      mask: float32 [rows], or None.
      replicas: number of replicas.
      compiled: whether XLA compiles.
      shards: number of virtual shards, of one replica if it is not 0.
      alone: whether a single replica tells that it is; else it reduces over itself.
    """
    strategy = strategy_of(replicas)
    synchronise = reductions(shards)[0] if replicas > 1 else list if alone else lambda each: each
    parts = [np.split(each, replicas) for each in (x, upstream)]
    masks = None if mask is None else np.split(mask, replicas)

    def on_replica(x, upstream, mask):
        context = ForwardContext(
            True, mask, dtype=x.dtype, all_reduce=synchronise, compiled=compiled
        )
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, context)
        batch = [update.batch for update in context.updates]
        of_x, *others = tape.gradient(y, [x, layer.scale, layer.offset], upstream)
        return (y, *batch, of_x, *all_reduce(others))

    stacked = [np.stack(each) for each in parts]
    stacked.append(None if mask is None else np.stack(masks))

    @tf.function(autograph=False, jit_compile=compiled)
    def everywhere(stacked):
        def run():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            return on_replica(*(None if each is None else each[index] for each in stacked))

        return strategy.run(run)

    stacked = [None if each is None else tf.constant(each) for each in stacked]
    found = [strategy.experimental_local_results(each) for each in everywhere(stacked)]
    results = list(zip(*found, strict=True))
    joined = [np.concatenate([np.asarray(r[i]) for r in results]) for i in (0, 3)]
    first = [np.asarray(each) for each in results[0]]
    for other in results[1:]:  # all replicas hold the same moments
        for index in (1, 2):
            np.testing.assert_array_equal(first[index], np.asarray(other[index]))
    return dict(zip(RESULTS, (joined[0], *first[1:3], joined[1], *first[4:]), strict=True))


def assert_close(found, wanted, x, layer, dtype, count):
    """Asserts that results are within rounding of float64's.

    A mean is off by a rounding of itself, an output by that over the deviation; the activations
    are rounded once or, on several replicas, three times to their dtype.
    """
    far = np.abs(wanted[1]) / np.sqrt(wanted[2] + layer.epsilon)
    unit = {tf.float32: UNIT, tf.bfloat16: 2.0**-9, tf.float16: 2.0**-12}[dtype]
    sums = of_sums(*[max(count, 2)] * 4) * (20 + far.max())
    for name, theirs in zip(RESULTS, wanted, strict=True):
        ours = np.float64(found[name])
        terms = sqrt(len(x)) if name in ("scale", "offset") else 1
        rounded = 0 if name in ("mean", "variance", "scale", "offset") else 4 * unit
        most = np.abs(theirs).max() + 1
        assert np.abs(ours - theirs).max() <= (sums * terms + rounded) * most, name


@st.composite
def cases(draw):
    replicas = draw(st.sampled_from([1, 1, 2]))
    shape = draw(st.sampled_from([(8, 3), (8, 5, 4, 3), (4, 6, 2), (4, 2, 3, 2, 2), (8, 1, 1, 2)]))
    mask = draw(
        st.one_of(
            st.none(),
            st.integers(0, shape[0]).map(lambda valid: np.float32(np.arange(shape[0]) < valid)),
            st.lists(st.booleans(), min_size=shape[0], max_size=shape[0]).map(np.float32),
        )
    )
    dtype = draw(st.sampled_from([tf.float32, tf.bfloat16, tf.float16]))
    mean = draw(st.sampled_from([0.0, 1.0, -30.0, 3000.0] if dtype == tf.float32 else [0.0, 2.0]))
    compiled = replicas == 1 and draw(st.sampled_from([False, False, False, True]))
    alone = compiled or (replicas == 1 and draw(st.booleans()))
    return shape, mask, dtype, mean, replicas, compiled, alone, draw(st.integers(0, 99))


@hypothesis.settings(max_examples=12)
@hypothesis.given(cases())
def test_matches_float64(case):
    """Each way to compute the layer gives the outputs, moments and gradients of the formulas."""
    shape, mask, dtype, mean, replicas, compiled, alone, seed = case
    random, layer = np.random.default_rng(seed), layer_of(shape[-1], seed)
    x = tf.cast(random.normal(size=shape) + mean, dtype).numpy()
    upstream = tf.cast(random.normal(size=shape), dtype).numpy()
    found = computed(layer, x, upstream, mask, replicas=replicas, compiled=compiled, alone=alone)
    valid = np.ones(shape[0]) if mask is None else mask
    wanted = reference(x, upstream, valid, layer)
    assert found["output"].dtype == found["inputs"].dtype == x.dtype
    assert found["mean"].dtype == found["variance"].dtype == np.float32
    assert_close(found, wanted, x, layer, dtype, int(valid.sum() * np.prod(shape[1:-1])))


@functools.cache
def first_batch(mean: float) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.float32(random.normal(size=(64, 14, 14, 8)) + mean)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("mean", [1, 10, 100, 1e3, 1e4, 1e5])
def test_first_batch_of_large_mean(mean, replicas):
    """Outputs are at most twice as wrong as Keras's; mean and variance keep their digits."""
    x, layer, twin = first_batch(mean), BatchNorm(), keras.layers.BatchNormalization()
    layer.build(x.shape[1:], Initializer(0, 0, layer.kind))
    mask, upstream = np.ones(len(x), np.float32), np.roll(first_batch(1), 1)
    wanted = reference(x, upstream, mask, layer)
    of_keras = np.abs(twin(tf.constant(x), training=True) - wanted[0]).max()
    found = computed(layer, x, upstream, mask, replicas=replicas)
    assert np.abs(found["output"] - wanted[0]).max() <= 2 * of_keras
    assert np.abs(found["mean"] - wanted[1]).max() <= 4 * UNIT * max(mean, 10)
    # In gradients, an error of the mean counts as one of an output of deviation 1.
    bound = 1e-5 + 16 * UNIT * mean
    assert np.abs(found["variance"] - wanted[2]).max() <= bound
    assert np.abs(found["inputs"] - wanted[3]).max() <= bound
    assert np.abs(found["scale"] / wanted[4] - 1).max() <= 1e-3 + len(x) * bound


def test_large_mean_under_xla():
    x, layer = first_batch(1e4), layer_of(8)
    mask, upstream = np.ones(len(x), np.float32), first_batch(0)
    found = computed(layer, x, upstream, mask, compiled=True)
    wanted = reference(x, upstream, mask, layer)
    assert np.abs(found["variance"] - wanted[2]).max() <= 1e-4
    assert np.abs(found["output"] - wanted[0]).max() <= 1e-2


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_replica_of_padding(dtype):
    """A replica without a valid row takes part with weight 0, and its outputs are finite."""
    random, layer = np.random.default_rng(0), layer_of(3)
    x, upstream = (tf.cast(random.normal(size=(8, 2, 2, 3)), dtype).numpy() for _ in range(2))
    mask = np.float32([1, 1, 1, 0, 0, 0, 0, 0])
    found = computed(layer, x, upstream, mask, replicas=2)
    assert_close(found, reference(x, upstream, mask, layer), x, layer, dtype, 12)


@pytest.mark.parametrize("alone", [True, False])
def test_no_copy_in_32_bits(alone):
    """Activations of 16 bits are read as they are, also where rows are padding."""
    layer, spec = layer_of(3), tf.TensorSpec([8, 2, 2, 3], tf.bfloat16)

    @tf.function(autograph=False)
    def step(x, mask):
        context = ForwardContext(
            True, mask, dtype=x.dtype, all_reduce=list if alone else lambda each: each
        )
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, context)
        return tape.gradient(y, [x, layer.scale, layer.offset], tf.roll(x, 1, 0))

    found = nodes(step.get_concrete_function(spec, tf.TensorSpec([8])))
    assert not [
        node.name
        for node in found
        if node.op == "Cast"
        and "SrcT" in node.attr
        and node.attr["SrcT"].type == tf.bfloat16.as_datatype_enum
    ]


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
@pytest.mark.parametrize("ways", [{}, {"alone": False}, {"compiled": True}, {"replicas": 2}])
def test_micro_batch_of_padding(dtype, ways):
    """Its outputs are the offset: they do not grow in a deep network, where infinity * 0 is nan."""
    layer = layer_of(3)
    x = tf.cast(tf.fill([8, 2, 2, 3], 6e4), dtype).numpy()
    found = computed(layer, x, np.zeros_like(x), np.zeros(8, np.float32), **ways)
    offset = np.broadcast_to(layer.offset, x.shape)
    np.testing.assert_allclose(np.float32(found["output"]), offset, rtol=0.01)
    assert not any(found[name].any() for name in ("inputs", "scale", "offset"))


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
@pytest.mark.parametrize("alone", [True, False])
def test_one_valid_element(dtype, alone):
    """Its variance is 0, not 0/0."""
    x, layer = np.float32([[3.0, -2.0]]), layer_of(2)
    x = tf.cast(x, dtype).numpy()
    found = computed(layer, x, np.ones_like(x), None, alone=alone)
    assert not found["variance"].any() and not found["inputs"].any()
    np.testing.assert_allclose(np.float32(found["output"][0]), layer.offset, rtol=0.01)


def test_squares_that_overflow():
    x = np.float32(np.random.default_rng(0).normal(size=(16, 4)) * 1e19 + 3e19)
    found = computed(layer_of(4), x, np.ones_like(x), None)
    assert np.isfinite(found["mean"]).all()
    np.testing.assert_allclose(found["mean"], np.float64(x).mean(0), rtol=1e-6)


@pytest.mark.parametrize("replicas", [1, 2])
def test_images_of_large_mean_train(replicas):
    """Images of mean 3,000 and deviation 1 train, from the first step on."""
    images, labels = pictures(64)
    images = np.float32(images) / 60 + 3000

    def network():
        norm = models.BatchNorm(momentum=0.5)
        return [models.Convolution(4), norm, models.Flatten(), models.Dense(3)]

    run = training(images, labels, network=network, replicas=replicas, batch=16).take(40)
    logits = run.state.model(tf.constant(images), ForwardContext(training=True))
    assert np.mean(np.argmax(logits, 1) == labels) > 0.9


def operations(replicas: int, shards: int, jit: str = "off") -> set[str]:
    images, labels = pictures(27)
    run = training(images, labels, network=norm_network, replicas=replicas, shards=shards, jit=jit)
    return {(node.op, node.attr["is_training"].b) for node in nodes(run.loop.graph())}


KERNEL = ("FusedBatchNormGradV3", True)


@pytest.mark.parametrize(("replicas", "shards"), [(1, 0), (1, 4), (2, 4)])
def test_kernel_where_replica_is_alone(replicas, shards):
    """One kernel computes the gradient where no other replica shares the micro-batch."""
    assert KERNEL in operations(replicas, shards)


def test_no_kernel_elsewhere():
    assert KERNEL not in operations(2, 0)
    assert not [op for op, _ in operations(1, 0, "step") if "FusedBatchNorm" in op]


def test_evaluation_subtracts_mean_first():
    """The products of a large mean would be rounded once more."""
    layer, x = layer_of(3), np.float32(np.random.default_rng(1).normal(size=(32, 3)) + 1e4)
    layer.moving_mean.assign(x.mean(0))
    found = np.asarray(layer(tf.constant(x), ForwardContext()))
    mean, variance = np.float64(layer.moving_mean), np.float64(layer.moving_variance)
    normal = (np.float64(x) - mean) / np.sqrt(variance + layer.epsilon)
    wanted = normal * np.float64(layer.scale) + np.float64(layer.offset)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("replicas", "compiled"), [(1, False), (1, True), (2, False)])
def test_without_scale(replicas, compiled, training):
    """It is the layer whose scale is 1, and has no variable of it."""
    layers = [BatchNorm(0.6, 1e-12, use_scale=each) for each in (True, False)]
    x = np.float32(np.random.default_rng(0).normal(size=(8, 5, 4, 3)) * 3 + 1)
    strategy, found = strategy_of(replicas), []
    synchronise = reductions(0)[0] if replicas > 1 else list
    for layer in layers:
        with strategy.scope():
            layer.build((5, 4, 3), Initializer(0, 0, layer.kind))
            layer.offset.assign([1.0, -2.0, 0.5])

        @tf.function(autograph=False, jit_compile=compiled)
        def everywhere(x, layer=layer):
            def run():
                index = tf.distribute.get_replica_context().replica_id_in_sync_group
                own = tf.split(x, replicas)[0] if replicas == 1 else x[index * 4 : index * 4 + 4]
                context = ForwardContext(training, all_reduce=synchronise, compiled=compiled)
                with tf.GradientTape() as tape:
                    tape.watch(own)
                    y = layer(own, context)
                values = [each.value for each in context.updates]
                return [y, *tape.gradient(y, [own, layer.offset], tf.square(y)), *values]

            return strategy.run(run)

        values = [strategy.experimental_local_results(each)[0] for each in everywhere(x)]
        found.append([each.numpy() for each in values])
    assert [variable.name for variable in layers[1].trainable_variables] == [
        "0_batch norm/offset:0"
    ]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"use_scale": False, "zero_scale": True}, {"epsilon": 0.0}, {"momentum": 1.5}]
)
def test_refused(options):
    with pytest.raises(ValueError, match=r"of a batch norm|a batch norm with"):
        BatchNorm(**options)
