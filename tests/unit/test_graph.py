"""Inspection of graphs: random generators, captured variables and fingerprints of traces."""

from __future__ import annotations

import tensorflow as tf

from engine.models.tracing import hidden_random_ops
from engine.verify import graph
from tests.harness import pictures, training


def traced(function):
    return tf.function(function, autograph=False).get_concrete_function()


def test_finds_generators():
    def body(i):
        with tf.control_dependencies([tf.random.normal([])]):
            return i + 1

    def looped():
        return tf.while_loop(lambda i: i < 3, body, [tf.constant(0)])

    assert hidden_random_ops(traced(looped)) == ["RandomStandardNormal"]
    generator = tf.random.Generator.from_seed(1)
    assert hidden_random_ops(traced(lambda: generator.uniform([]))) == ["RngReadAndSkip"]
    stateless = traced(lambda: tf.random.stateless_uniform([3], seed=[1, 2]))
    assert hidden_random_ops(stateless) == []


def test_fingerprint_of_traces():
    """Equal traces have equal fingerprints; another Python number changes the fingerprint."""
    numbers = iter([1.0, 1.0, 2.0])

    def scaled():
        number = next(numbers)
        return tf.while_loop(lambda x: x < 9.0, lambda x: x + number, [tf.constant(0.0)])

    first, same, other = (graph.fingerprint(traced(scaled)) for _ in range(3))
    assert first == same
    assert first != other


def test_step_uses_only_state():
    images, labels = pictures(20)
    for replicas in (1, 2):
        run = training(images, labels, replicas=replicas)
        assert graph.untracked_variables(run.loop.graph(), run.state.variables) == []
        but_one = [v for v in run.state.variables if v is not run.state.step]
        assert graph.untracked_variables(run.loop.graph(), but_one) == [run.state.step]


def test_graph_traced_once():
    """`Loop.graph` traces the loop at most once, and takes no step."""
    images, labels = pictures(20)
    run = training(images, labels)
    assert graph.fingerprint(run.loop.graph()) == graph.fingerprint(run.loop.graph(retrace=True))
    assert (run.loop.traces, int(run.state.step)) == (1, 0)
    run.take(3)
    assert run.loop.traces == 1
