"""Counts the floating-point operations of a traced function from its graph.

Only matrix products and 2-D convolutions count, with two operations for each multiply-add.
Depthwise convolutions and Einsum operations do not count.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from engine.core.conditional import ONCE

_WHILE = {"While": ("body",), "StatelessWhile": ("body",)}
_BRANCHES = {
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
}
_CALLS = {"PartitionedCall": ("f",), "StatefulPartitionedCall": ("f",)}
_MATRIX_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
# Index of the kernel, or of its gradient, among an operation's inputs and outputs; that of the
# convolution's output, or of its gradient, is 2.
_KERNELS = {"Conv2D": 1, "Conv2DBackpropInput": 1, "Conv2DBackpropFilter": 3}


def flops_of_step(loop: Any, local_micro_batches: int) -> float:
    """Returns the number of floating-point operations of one training step on all replicas.

    Args:
      loop: ConcreteFunction of the training loop. This function, or the one that it calls, has a
        single loop over log points, whose body has a single loop over steps, whose body may have
        loops over micro-batches.
      local_micro_batches: number of micro-batches that a replica computes in a step.

    Raises:
      ValueError: if a dimension is unknown in the graph.
    """
    return _flops(_body(_body(loop.graph)), local_micro_batches)


def _body(graph: Any) -> Any:
    """Returns the graph of the body of the only loop in a graph, or in the function it calls.

    A loop named `ONCE` does not count.
    """
    operations = graph.get_operations()
    loops = [op for op in operations if op.type in _WHILE and ONCE not in op.name]
    if not loops:
        (call,) = (op for op in operations if op.type in _CALLS)
        return _body(*_called(graph, call))
    (loop,) = loops
    return _called(graph, loop)[0]


def _flops(graph: Any, trips: int) -> float:
    """Returns the number of floating-point operations of one execution of a graph.

    `trips`, the total number of iterations of a loop nest, multiplies the count of its innermost
    loop. A loop named `ONCE` counts once; of conditional branches, the most expensive counts.
    """
    total = 0.0
    for op in _needed(graph):
        if op.type in _MATRIX_PRODUCTS or op.type in _KERNELS:
            total += 2.0 * _multiplications(op)
            continue
        called = _called(graph, op)
        flops = [_flops(each, trips) for each in called]
        if op.type in _WHILE:  # the iterations count once, in the innermost loop of a nest
            nested = any(each.type in _WHILE for body in called for each in _needed(body))
            total += sum(flops) if nested or ONCE in op.name else trips * sum(flops)
        elif flops:
            total += max(flops) if op.type in _BRANCHES else sum(flops)
    return total


def _needed(graph: Any) -> list[tf.Operation]:
    """Returns the operations that outputs or side effects depend on; others are not executed."""
    needed: set[tf.Operation] = set()
    waiting = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    return [op for op in graph.get_operations() if op in needed]


def _called(graph: Any, op: tf.Operation) -> list[Any]:
    """Returns the graphs of the functions that an operation calls; for a loop, only the body's."""
    graphs = []
    for attribute in (_WHILE | _BRANCHES | _CALLS).get(op.type, ()):
        value = op.get_attr(attribute)
        for function in value if isinstance(value, list) else [value]:
            graphs.append(graph._get_function(function.name).graph)
    return graphs


def _multiplications(op: tf.Operation) -> int:
    """Returns the number of multiplications of a matrix product or convolution.

    Raises:
      ValueError: if a dimension is unknown in the graph.
    """
    shapes = [tensor.shape for tensor in (*op.inputs, *op.outputs)]
    if op.type in _KERNELS:  # one per output pixel and kernel element
        output, kernel = list(shapes[2]), shapes[_KERNELS[op.type]]
        output.pop(1 if op.node_def.attr["data_format"].s == b"NCHW" else -1)  # channels
        sizes = [*output, *kernel]
    else:
        transposed = op.node_def.attr["transpose_a"].b or op.node_def.attr["adj_x"].b
        sizes = [*shapes[-1], shapes[0][-2 if transposed else -1]]
    if None in sizes:
        raise ValueError(f"{op.name}: a size is not known from the graph")
    return math.prod(sizes)
