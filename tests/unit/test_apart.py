"""Gradients in a separate function, which TensorFlow does not inline into the loop body."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.core import xla
from engine.core.flops import flops_of_step
from engine.core.loop import Loop
from engine.distributed.strategies import Devices
from engine.verify.trajectory import weights
from tapeline import models
from tests import rounding
from tests.harness import strategy_of
from tests.laws.product import assembled

OPTIONS = {"train_split": "train[:77]", "global_batch_size": 18}
GRADIENT = "MaxPoolGrad"
STEPS = 4


def functions_with_a_pools_gradient(loop):
    """Returns whether the loop has a `GRADIENT` op, and the attributes of functions with one."""
    graph = loop.graph(retrace=True).graph.as_graph_def()
    of_functions = [
        function.attr
        for function in graph.library.function
        if any(node.op == GRADIENT for node in function.node_def)
    ]
    return any(node.op == GRADIENT for node in graph.node), of_functions


@pytest.mark.parametrize("accumulate", [1, 3])
def test_pool_gradient_outside_loop(tmp_path, accumulate):
    """The gradient of a max pool is in a function that is not inlined into the loop body."""
    parts = assembled(str(tmp_path), model="cnn", accumulate=accumulate, **OPTIONS)
    of_loop, attributes = functions_with_a_pools_gradient(parts.loop)
    assert not of_loop
    # A function that may be inlined into its caller would be part of the loop body after all.
    assert [each["_noinline"].b for each in attributes] == [True]
    parts.close()


def test_weights_and_flops_unchanged(tmp_path):
    """A separate function changes weights only by rounding, and FLOPs not at all."""
    found, path = [], {}  # the path of both runs
    for apart in (False, True):
        parts = assembled(str(tmp_path), model="cnn", ema=0.9, **OPTIONS)
        loop = Loop(parts.strategy, parts.state, parts.feeds.training, parts.loop.step, apart=apart)
        for _ in range(STEPS):
            before = weights(parts)
            loop.run(1)
            for name, value in weights(parts).items():
                path[name] = path.get(name, 0.0) + np.linalg.norm(value - before[name])
        found.append((weights(parts), flops_of_step(loop.graph(retrace=True), 1)))
        lengths = rounding.lengths(parts.model, OPTIONS["global_batch_size"])
        optimizer = parts.config.optimizer.optimizer
        parts.close()
    (one, flops), (other, of_other) = found
    assert flops == of_other
    # These are two programs, with two kernels for the gradient of a max pool.
    error = rounding.of_switches(rounding.of_sums(*lengths))
    for name, value in one.items():
        moves, length = rounding.of_moves(error, optimizer, value.shape), np.linalg.norm(value)
        allowed = rounding.of_weights(moves, path[name] / 2, float(length), STEPS)
        assert np.linalg.norm(value - other[name]) <= allowed, name


class Foreign(tf.Module):
    """A user-defined network, of a class outside the engine."""

    def __init__(self, rank):
        super().__init__()
        self.layer = tf.Module()
        self.kernel = tf.Variable(tf.zeros([1] * rank))


def test_when_function_is_separate():
    """`xla.apart` is True for convolutions with a max pool on one CPU without XLA."""

    def network(*layers):
        return models.Sequential("some", [*layers, models.Flatten()], (8, 8, 1), seed=0)

    convolution = models.Convolution(2)
    cpu, gpu = (Devices(strategy_of(1), words) for words in ("a CPU", "a GPU"))
    pooled = network(convolution, models.MaxPool())
    assert xla.apart("off", cpu, pooled)
    assert not xla.apart("step", cpu, pooled)
    assert not xla.apart("off", gpu, pooled)
    assert not xla.apart("off", Devices(strategy_of(2), "CPUs"), pooled)
    assert not xla.apart("off", cpu, network(models.Convolution(2)))
    assert xla.apart("off", cpu, Foreign(4))
    assert not xla.apart("off", cpu, Foreign(2))
