"""Whether XLA can compile a training step with user-defined parts, by the operations of its graph.

The table holds what XLA for CPUs compiles to code at least as fast as TensorFlow's kernels: matrix
products and what it fuses around them. Convolutions, loops, sorts, scatters of single elements and
linear algebra are slower, and strings and Python functions cannot be compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from engine.core import graphs

NOT_CONVERTED = "XLA cannot convert the step"
COMPILED = frozenset(
    (
        # Inputs, constants, calls of functions.
        *("Const", "EnsureShape", "Identity", "IdentityN", "NoOp", "Placeholder"),
        "PreventGradient",
        *("PartitionedCall", "ReadVariableOp", "StatefulPartitionedCall", "StopGradient"),
        "XlaOptimizationBarrier",
        # Shapes and axes, which XLA computes when it compiles.
        *("BroadcastArgs", "BroadcastGradientArgs", "ConcatOffset", "InvertPermutation", "Range"),
        *("Rank", "Shape", "ShapeN", "Size"),
        # Movement of elements.
        *("Bitcast", "BroadcastTo", "Cast", "ConcatV2", "ExpandDims", "Fill", "GatherV2", "OneHot"),
        *("OnesLike", "Pack", "Pad", "PadV2", "Reshape", "ReverseV2", "Slice", "Split", "SplitV"),
        *("Squeeze", "StridedSlice", "StridedSliceGrad", "Tile", "Transpose", "Unpack"),
        *("UnsortedSegmentSum", "ZerosLike", "MatrixBandPart"),
        # Products.
        *("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "MatMul"),
        # Sums, and what is built of them.
        *("All", "Any", "ArgMax", "ArgMin", "BiasAdd", "BiasAddGrad", "EuclideanNorm", "L2Loss"),
        *("LogSoftmax", "Max", "Mean", "Min", "Prod", "Softmax", "SoftmaxCrossEntropyWithLogits"),
        *("SparseSoftmaxCrossEntropyWithLogits", "Sum"),
        # Functions of single elements, and their gradients.
        *("Abs", "Acos", "Add", "AddN", "AddV2", "Asin", "Atan", "Atan2", "Ceil", "ClipByValue"),
        *("Cos", "Cosh", "Div", "DivNoNan", "Elu", "EluGrad", "Equal", "Erf", "Erfc", "Erfinv"),
        *("Exp", "Expm1", "Floor", "FloorDiv", "FloorMod", "Greater", "GreaterEqual", "Inv"),
        *("InvGrad", "IsFinite", "IsInf", "IsNan", "LeakyRelu", "LeakyReluGrad", "Less"),
        *("LessEqual", "Log", "Log1p", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum"),
        *("Minimum", "Mod", "Mul", "MulNoNan", "Ndtri", "Neg", "NextAfter", "NotEqual", "Pow"),
        *("RealDiv", "Reciprocal", "ReciprocalGrad", "Relu", "Relu6", "Relu6Grad", "ReluGrad"),
        *("Rint", "Round", "Rsqrt", "RsqrtGrad", "Select", "SelectV2", "Selu", "SeluGrad"),
        *("Sigmoid", "SigmoidGrad", "Sign", "Sin", "Sinh", "Softplus", "SoftplusGrad", "Softsign"),
        *("SoftsignGrad", "Sqrt", "SqrtGrad", "Square", "SquaredDifference", "Sub", "Tan", "Tanh"),
        *("TanhGrad", "TruncateDiv", "TruncateMod", "Xdivy", "Xlog1py", "Xlogy"),
        # Of integers: random numbers as Tapeline computes them in compiled code.
        *("BitwiseAnd", "BitwiseOr", "BitwiseXor", "Invert", "LeftShift", "RightShift"),
    )
)


def traced(compute: Callable[..., Any], arguments: Any) -> Any:
    """Returns the `tf.function` of `compute` that XLA would compile, traced for its arguments.

    Nothing is compiled or executed.

    Args:
      compute: computes a nest of tensors from a nest; traced once.
      arguments: nest of TensorSpec.
    """
    flat = tf.nest.flatten(arguments)

    def flattened(*tensors: tf.Tensor) -> Any:
        return compute(tf.nest.pack_sequence_as(arguments, tensors))

    function = tf.function(flattened, flat, autograph=False, jit_compile=True)
    function.get_concrete_function()
    return function


def obstacle(function: Any) -> str:
    """Returns what speaks against compiling a function by XLA for a CPU; "" if nothing does.

    Looks the operations of the graph up in the table, and then lets XLA convert the graph, which
    finds all that is not known from the types of operations, such as a shape that depends on
    values. Nothing is compiled or executed. The result is a function of the graph alone.

    Args:
      function: result of `traced`.
    """
    if any(spec.dtype == tf.string for spec in function.input_signature):
        return "the examples hold strings"
    unknown = sorted(set(_types(function.get_concrete_function().graph)) - COMPILED)
    if unknown:
        return f"the step has the operation {unknown[0]}"
    try:
        function.experimental_get_compiler_ir(*function.input_signature)(stage="hlo")
    except Exception:  # XLA has no common class of its errors
        return NOT_CONVERTED
    return ""


def _types(graph: Any) -> Iterator[str]:
    """Yields the types of the operations that a graph and the functions it calls execute."""
    for op in graphs.needed(graph):
        yield op.type
        for each in graphs.called(graph, op):
            yield from _types(each)
