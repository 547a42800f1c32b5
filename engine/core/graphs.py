"""Walks graphs of traced functions: operations that are executed, and functions they call."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from engine.core.conditional import ONCE

LOOPS = {"While": ("body",), "StatelessWhile": ("body",)}
BRANCHES = {
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
}
CALLS = {"PartitionedCall": ("f",), "StatefulPartitionedCall": ("f",)}


def step_body(loop: Any) -> Any:
    """Returns the graph of one training step.

    Args:
      loop: ConcreteFunction of the training loop. This function, or the one that it calls, has a
        single loop over log points, whose body has a single loop over steps.
    """
    return _body(_body(loop.graph))


def _body(graph: Any) -> Any:
    """Returns the graph of the body of the only loop in a graph, or in the function it calls.

    A loop named `ONCE` does not count.
    """
    operations = graph.get_operations()
    loops = [op for op in operations if op.type in LOOPS and ONCE not in op.name]
    if not loops:
        (call,) = (op for op in operations if op.type in CALLS)
        return _body(*called(graph, call))
    (loop,) = loops
    return called(graph, loop)[0]


def needed(graph: Any) -> list[tf.Operation]:
    """Returns the operations that outputs or side effects depend on; others are not executed."""
    found: set[tf.Operation] = set()
    waiting = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    return [op for op in graph.get_operations() if op in found]


def called(graph: Any, op: tf.Operation) -> list[Any]:
    """Returns the graphs of the functions that an operation calls; for a loop, only the body's."""
    graphs = []
    for attribute in (LOOPS | BRANCHES | CALLS).get(op.type, ()):
        value = op.get_attr(attribute)
        for function in value if isinstance(value, list) else [value]:
            graphs.append(graph._get_function(function.name).graph)
    return graphs
