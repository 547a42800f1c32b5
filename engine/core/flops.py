"""Counts the floating-point operations of a traced function from its graph.

Only matrix products, Einsum operations and convolutions count, with two operations for each
multiply-add. Operations on single elements, such as activations and the optimizer, do not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from engine.core import graphs
from engine.core.conditional import ONCE

_MATRIX_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
# Index of the kernel, or of its gradient, among an operation's inputs and outputs; that of the
# convolution's output, or of its gradient, is 2.
_KERNELS = {
    "Conv2D": 1,
    "Conv2DBackpropInput": 1,
    "Conv2DBackpropFilter": 3,
    "Conv3D": 1,
    "Conv3DBackpropInputV2": 1,
    "Conv3DBackpropFilterV2": 3,
    "DepthwiseConv2dNative": 1,
    "DepthwiseConv2dNativeBackpropInput": 1,
    "DepthwiseConv2dNativeBackpropFilter": 3,
}


def flops_of_step(loop: Any, local_micro_batches: int) -> float:
    """Returns the number of floating-point operations of one training step on all replicas.

    Args:
      loop: ConcreteFunction of the training loop, as for `graphs.step_body`. The body of its loop
        over steps may have loops over micro-batches.
      local_micro_batches: number of micro-batches that a replica computes in a step.

    Raises:
      ValueError: if a dimension is unknown in the graph.
    """
    return _flops(graphs.step_body(loop), local_micro_batches)


def mean_product(graph: Any) -> float:
    """Returns the mean number of multiplications of the matrix products in a graph; 0 without any.

    Einsum operations count as matrix products. The functions that the graph calls count, too.

    Raises:
      ValueError: if a dimension is unknown in the graph.
    """
    found = list(_products(graph))
    return sum(found) / len(found) if found else 0.0


def _products(graph: Any) -> Iterator[int]:
    for op in graphs.needed(graph):
        if op.type in _MATRIX_PRODUCTS or op.type == "Einsum":
            yield _multiplications(op)
        for each in graphs.called(graph, op):
            yield from _products(each)


def _flops(graph: Any, trips: int) -> float:
    """Returns the number of floating-point operations of one execution of a graph.

    `trips`, the total number of iterations of a loop nest, multiplies the count of its innermost
    loop. A loop named `ONCE` counts once; of conditional branches, the most expensive counts.
    """
    total = 0.0
    for op in graphs.needed(graph):
        if op.type in _MATRIX_PRODUCTS or op.type in _KERNELS or op.type == "Einsum":
            total += 2.0 * _multiplications(op)
            continue
        bodies = graphs.called(graph, op)
        flops = [_flops(each, trips) for each in bodies]
        if op.type in graphs.LOOPS:  # the iterations count once, in the innermost loop of a nest
            nested = any(
                each.type in graphs.LOOPS for body in bodies for each in graphs.needed(body)
            )
            total += sum(flops) if nested or ONCE in op.name else trips * sum(flops)
        elif flops:
            total += max(flops) if op.type in graphs.BRANCHES else sum(flops)
    return total


def _multiplications(op: tf.Operation) -> int:
    """Returns the number of multiplications of a matrix product, Einsum or convolution.

    Raises:
      ValueError: if a dimension is unknown in the graph.
    """
    shapes = [tensor.shape for tensor in (*op.inputs, *op.outputs)]
    if op.type == "Einsum":
        sizes = _einsum_sizes(op.get_attr("equation").decode(), shapes[:-1])
    elif op.type in _KERNELS:  # one per output pixel and kernel element
        output, kernel = list(shapes[2]), shapes[_KERNELS[op.type]]
        output.pop(1 if op.node_def.attr["data_format"].s.startswith(b"NC") else -1)  # channels
        sizes = [*output, *kernel]
    else:
        transposed = op.node_def.attr["transpose_a"].b or op.node_def.attr["adj_x"].b
        sizes = [*shapes[-1], shapes[0][-2 if transposed else -1]]
    if None in sizes:
        raise ValueError(f"{op.name}: a size is not known from the graph")
    return math.prod(sizes)  # type: ignore[arg-type]


def _einsum_sizes(equation: str, shapes: list[tf.TensorShape]) -> list[int | None]:
    """Returns the size of each label of an Einsum's operands; one of several sizes if it is 1.

    The axes that `...` stands for have labels by their position from the right.
    """
    sizes: dict[Any, int | None] = {}
    for labels, shape in zip(equation.split("->")[0].split(","), shapes, strict=True):
        before, ellipsis, after = labels.strip().partition("...")
        more = len(shape) - len(before) - len(after) if ellipsis else 0
        for label, size in zip([*before, *range(-more, 0), *after], shape, strict=True):
            sizes[label] = size if sizes.get(label, 1) == 1 else sizes[label]
    return list(sizes.values())
