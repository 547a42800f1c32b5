"""Counts the floating-point operations of a traced function from its graph.

Counts matrix products and convolutions only, with two operations for each multiply-add. The result
can be compared with a machine's rate of matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.core.conditional import ONCE


def flops_of_step(loop: Any, local_micro_batches: int) -> float:
    """Returns the number of floating-point operations of one step on all replicas.

    Args:
      loop: ConcreteFunction with one loop over log points around one loop over steps, directly or
        in a function that it calls.
      local_micro_batches: number of micro-batches that a replica computes sequentially, in loops
        inside the loop over steps.

    Raises:
      ValueError: when a dimension is unknown in the graph.
    """
    return _of_graph(_body(_body(loop.graph)), local_micro_batches)


def _body(graph: Any) -> Any:
    """Returns the body of the only loop of many iterations, in a graph or the function it calls."""
    operations = graph.get_operations()
    loops = [op for op in operations if op.type in _WHILE and ONCE not in op.name]
    if not loops:
        (call,) = (op for op in operations if op.type in _CALLS)
        return _body(*_called(graph, call))
    (loop,) = loops
    return _called(graph, loop)[0]


def _of_graph(graph: Any, trips: int) -> float:
    """Returns the number of operations of a graph.

    Args:
      graph: graph of a function.
      trips: total number of iterations of the innermost loop of each loop nest.
    """
    total = 0.0
    for op in _needed(graph):
        if op.type in _CONTRACTIONS:
            total += 2.0 * _product(op, _CONTRACTIONS[op.type](op))
            continue
        inner = [_of_graph(each, trips) for each in _called(graph, op)]
        if op.type in _WHILE:
            nested = any(each.type in _WHILE for g in _called(graph, op) for each in _needed(g))
            total += sum(inner) if nested or ONCE in op.name else trips * sum(inner)
        elif inner:
            total += max(inner) if op.type in _BRANCHES else sum(inner)
    return total


def _needed(graph: Any) -> list[tf.Operation]:
    """Returns the operations that outputs or side effects depend on; others are not executed."""
    found: set[tf.Operation] = set()
    waiting = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    return [op for op in graph.get_operations() if op in found]


def _called(graph: Any, op: tf.Operation) -> list[Any]:
    """Returns the graphs of the functions that an operation calls; for a loop, only the body's."""
    found = []
    for attribute in (_WHILE | _BRANCHES | _CALLS).get(op.type, ()):
        value = op.get_attr(attribute)
        for function in value if isinstance(value, list) else [value]:
            found.append(graph._get_function(function.name).graph)
    return found


def _of_product(op: tf.Operation) -> list[int | None]:
    """Returns the dimensions of a matrix product, or of a batch of them."""
    transposed = _attribute(op, "transpose_a") or _attribute(op, "adj_x")
    left = op.inputs[0].shape
    return [*op.outputs[0].shape, left[-2] if transposed else left[-1]]


def _of_convolution(output: Callable, kernel: Callable) -> Callable:
    """Returns a function that returns the dimensions of a convolution or of its gradient.

    Their product is the number of multiplications: one per output pixel and kernel element.

    Args:
      output: returns the shape of the convolution's output, given the operation.
      kernel: returns the shape of the kernel, given the operation.
    """

    def count(op: tf.Operation) -> list[int | None]:
        *taps, channels, filters = kernel(op)
        place = output(op)
        pixels = (
            [*place[:1], *place[2:]] if _attribute(op, "data_format") == b"NCHW" else place[:-1]
        )
        return [*pixels, *taps, channels, filters]

    return count


def _attribute(op: tf.Operation, name: str) -> Any:
    return op.node_def.attr[name].b or op.node_def.attr[name].s


def _product(op: tf.Operation, sizes: list[int | None]) -> int:
    if any(size is None for size in sizes):
        raise ValueError(f"{op.name}: a size is not known from the graph")
    return math.prod(int(size) for size in sizes if size is not None)


_WHILE = {"While": ("body",), "StatelessWhile": ("body",)}
_BRANCHES = {
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
}
_CALLS = {"PartitionedCall": ("f",), "StatefulPartitionedCall": ("f",)}
_CONTRACTIONS = {
    "MatMul": _of_product,
    "BatchMatMul": _of_product,
    "BatchMatMulV2": _of_product,
    "BatchMatMulV3": _of_product,
    "Conv2D": _of_convolution(lambda op: op.outputs[0].shape, lambda op: op.inputs[1].shape),
    "Conv2DBackpropInput": _of_convolution(
        lambda op: op.inputs[2].shape, lambda op: op.inputs[1].shape
    ),
    "Conv2DBackpropFilter": _of_convolution(
        lambda op: op.inputs[2].shape, lambda op: op.outputs[0].shape
    ),
}
