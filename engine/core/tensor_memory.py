"""Expected memory of a graph's tensors, from their lifetimes.

A tensor is alive from the operation that computes it to the last one that uses it. The operations
run in the order of the graph. An operation that changes single elements reuses the memory of an
input that nothing else needs, and a reshaped tensor shares that of its input, as in TensorFlow's
executor. Programs of XLA need less, because fused operations keep fewer tensors.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from engine.core import graphs

# Operations whose output shares the memory of their first input.
_SHARES = frozenset(
    (
        *("Identity", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "PreventGradient"),
        *("Bitcast", "Snapshot", "CheckNumerics", "PlaceholderWithDefault"),
    )
)
# Operations each of whose outputs shares the memory of the input of the same index.
_SHARE_EACH = frozenset(("IdentityN", "XlaOptimizationBarrier"))
# Operations without memory of their own: variables and constants count once, elsewhere.
_OUTSIDE = frozenset(("Placeholder", "Const", "ReadVariableOp", "VarHandleOp", "NoOp", "Arg"))
# Operations on single elements, which may write their output over an input.
_IN_PLACE = frozenset(
    (
        *("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "Pow"),
        *("BiasAdd", "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh"),
        *("Sigmoid", "Exp", "Log", "Log1p", "Expm1", "Sqrt", "Rsqrt", "Square", "Neg", "Abs"),
        *("ReluGrad", "Relu6Grad", "EluGrad", "TanhGrad", "SigmoidGrad", "RsqrtGrad", "SqrtGrad"),
        *("LeakyReluGrad", "SoftplusGrad", "SeluGrad", "Erf", "Erfc", "Reciprocal", "Softmax"),
        *("SquaredDifference", "SelectV2", "Select", "Cast", "DivNoNan", "MulNoNan", "LogSoftmax"),
    )
)


def peak_bytes(graph: Any) -> int:
    """Returns the expected peak memory of a graph's tensors, without its inputs, in bytes.

    Raises:
      ValueError: if a dimension is unknown in the graph.
    """
    operations = graphs.needed(graph)
    owners: dict[str, str] = {}  # name of a tensor -> that of the tensor whose memory it shares
    last: dict[str, int] = {}  # name of such a tensor -> index of the last operation that uses it
    for index, op in enumerate(operations):
        for tensor in op.inputs:
            last[owners.get(tensor.name, tensor.name)] = index
        for one, other in _shared(op):
            owners[other.name] = owners.get(one.name, one.name)
    for tensor in graph.outputs:
        last[owners.get(tensor.name, tensor.name)] = len(operations)
    sizes: dict[str, int] = {}  # bytes of the tensors that are alive
    alive = peak = 0
    for index, op in enumerate(operations):
        used = {owners.get(tensor.name, tensor.name) for tensor in op.inputs}
        ends = [name for name in used if last[name] == index]
        inside = max((peak_bytes(each) for each in graphs.called(graph, op)), default=0)
        computed = [] if op.type in _SHARES | _SHARE_EACH | _OUTSIDE else op.outputs
        new = {tensor.name: _bytes(tensor, op) for tensor in computed}
        if op.type in _IN_PLACE and len(new) == 1:
            (size,) = new.values()
            reused = next((key for key in ends if size and sizes.get(key) == size), None)
            if reused is not None:
                alive -= sizes.pop(reused)
        sizes |= new
        alive += sum(new.values())
        # A called function's results are part of its own peak.
        peak = max(peak, alive, alive - sum(new.values()) + inside if inside else 0)
        for key in (*ends, *(key for key in new if key not in last)):
            alive -= sizes.pop(key, 0)
    return peak


def _shared(op: tf.Operation) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Returns the pairs of an input and an output that share memory."""
    if op.type in _SHARE_EACH:
        return list(zip(op.inputs, op.outputs, strict=True))
    return [(op.inputs[0], op.outputs[0])] if op.type in _SHARES and op.inputs else []


def _bytes(tensor: tf.Tensor, op: tf.Operation) -> int:
    """Returns the size of an output of an operation in bytes; 0 for handles and axes.

    Raises:
      ValueError: if a dimension is unknown.
    """
    if tensor.dtype in (tf.resource, tf.variant, tf.string) or op.type == "BroadcastGradientArgs":
        return 0
    shape = tensor.shape
    if not shape.is_fully_defined():
        # The gradient of a batched product sums over axes that only the kernel knows, and reshapes
        # the sum.
        reshaped = (use.outputs[0].shape for use in tensor.consumers() if use.type == "Reshape")
        shape = next((each for each in reshaped if each.is_fully_defined()), None)
    if shape is None:
        raise ValueError(f"{tensor.name}: a size is not known from the graph")
    return math.prod(shape) * tensor.dtype.size
