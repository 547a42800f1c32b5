"""What is a function of its own to TensorFlow's executor, and why."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import models
from engine import compiling
from engine.benchmark.flops import flops_of_step
from engine.distribute import Devices
from engine.loop import Loop
from engine.verify.trajectory import weights
from tests import rounding
from tests.harness import strategy_of
from tests.laws.product import assembled

OPTIONS = {"train_split": "train[:77]", "global_batch_size": 18}
GRADIENT = "MaxPoolGrad"
STEPS = 4


def functions_with_a_pools_gradient(loop):
    """(whether the loop itself has one, the attributes of each function that has one)."""
    graph = loop.graph(anew=True).graph.as_graph_def()
    of_functions = [
        function.attr
        for function in graph.library.function
        if any(node.op == GRADIENT for node in function.node_def)
    ]
    return any(node.op == GRADIENT for node in graph.node), of_functions


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_pools_gradient_lies_in_no_circle(tmp_path, accumulate):
    parts = assembled(str(tmp_path), model="cnn", accumulate=accumulate, **OPTIONS)
    of_loop, attributes = functions_with_a_pools_gradient(parts.loop)
    assert not of_loop
    # What may be put into its caller's graph comes to lie in the loop after all.
    assert [each["_noinline"].b for each in attributes] == [True]
    parts.close()


def test_weights_and_flops_do_not_depend_on_it(tmp_path):
    found, path = [], {}  # the path of both
    for apart in (False, True):
        parts = assembled(str(tmp_path), model="cnn", ema=0.9, **OPTIONS)
        loop = Loop(
            parts.strategy, parts.state, parts.feeds.training, parts.loop._step, apart=apart
        )
        for _ in range(STEPS):
            before = weights(parts)
            loop.run(1)
            for name, value in weights(parts).items():
                path[name] = path.get(name, 0.0) + np.linalg.norm(value - before[name])
        found.append((weights(parts), flops_of_step(loop.graph(anew=True), 1)))
        lengths = rounding.lengths(parts.model, OPTIONS["global_batch_size"])
        optimizer = parts.config.optimization.optimizer
        parts.close()
    (one, flops), (other, of_other) = found
    assert flops == of_other
    # They are two programs, with two kernels for a pool's gradient.
    error = rounding.of_switches(rounding.of_sums(*lengths))
    for name, value in one.items():
        moves, length = rounding.of_moves(error, optimizer, value.shape), np.linalg.norm(value)
        allowed = rounding.of_weights(moves, path[name] / 2, float(length), STEPS)
        assert np.linalg.norm(value - other[name]) <= allowed, name


class Foreign(tf.Module):
    """Somebody's own network."""

    def __init__(self, rank):
        super().__init__()
        self.layer = tf.Module()
        self.kernel = tf.Variable(tf.zeros([1] * rank))


def test_it_is_for_pools_behind_convolutions_on_one_cpu():
    def network(*layers):
        return models.Sequential("some", [*layers, models.Flatten()], (8, 8, 1), seed=0)

    convolution = models.Convolution(2)
    cpu, gpu = (Devices(strategy_of(1), words) for words in ("a CPU", "a GPU"))
    pooled = network(convolution, models.MaxPool())
    assert compiling.apart("off", cpu, pooled)
    assert not compiling.apart("step", cpu, pooled)
    assert not compiling.apart("off", gpu, pooled)
    assert not compiling.apart("off", Devices(strategy_of(2), "CPUs"), pooled)
    assert not compiling.apart("off", cpu, network(models.Convolution(2)))
    assert compiling.apart("off", cpu, Foreign(4))
    assert not compiling.apart("off", cpu, Foreign(2))
