"""What is fast beside a batch norm: shortcuts on all cores, and one kernel of norm and ReLU."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as eager
from tensorflow.python.util import _pywrap_util_port as port

from engine.models.base import ForwardContext
from engine.models.sequential import Sequential
from tapeline import models
from tests.harness import pictures, training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("side", [7, 8])
def test_shortcut_copies(side, dtype):
    """The pool of single elements has the values and the gradient of a slice, to the bit."""
    layer = models.PaddedShortcut(6, 2)
    network = Sequential("network", [layer], (side, side, 4), 0)
    x = tf.cast(np.random.default_rng(0).normal(size=(3, side, side, 4)), dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = network.layers[0](x, ForwardContext(dtype=x.dtype))
        expected = tf.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [0, 2]])
    upstream = tf.cast(np.random.default_rng(1).normal(size=y.shape), dtype)
    gradients = [tape.gradient(each, x, upstream) for each in (y, expected)]
    for ours, theirs in ((y, expected), gradients):
        np.testing.assert_array_equal(tf.cast(ours, tf.float32), tf.cast(theirs, tf.float32))


def network() -> list[models.Layer]:
    convolutions = [models.Convolution(4, padding="SAME", use_bias=False) for _ in range(2)]
    norms = models.BatchNorm(), models.BatchNorm()
    relu = models.Activation("relu")
    head = models.Flatten(), models.Dense(3)
    return [convolutions[0], norms[0], relu, convolutions[1], norms[1], *head]


def test_norm_and_relu_are_one_kernel():
    """In a training step, whose number of rows is known only when the graph is optimized."""
    if not port.IsMklEnabled():
        pytest.skip("oneDNN is off")
    run = training(*pictures(32), network=network, batch=16)
    eager.enable_run_metadata()
    try:
        run.take(1)
        found = eager.context().export_run_metadata()
    finally:
        eager.disable_run_metadata()
    graphs = [graph for each in found.function_graphs for graph in each.partition_graphs]
    operations = {node.op for graph in graphs for node in graph.node}
    assert any("FusedBatchNormEx" in each for each in operations), operations
    assert "Relu" not in operations
