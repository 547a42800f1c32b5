"""Places a traced loop as on a GPU, without one, and finds operations that wait for a copy.

A copy between a GPU and the host, in either direction, waits until the GPU has done what it was
given before: TensorFlow starts the copy after that work, and what needs the copy after the copy.
So there must be no copy between two steps of a call.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.framework import kernels

# Places of a tensor: the memory of the GPU; that of the host, computed by the CPU, or by a kernel
# of the GPU that runs on the host; any, because it is known before the graph runs.
DEVICE, CPU, HOST, CONSTANT = "device", "CPU", "host", "constant"

# Their kernels read the shapes of tensors only, on the host.
_SHAPES = ("Shape", "ShapeN", "Size", "Rank")
_LOOPS, _BRANCHES = ("While", "StatelessWhile"), ("If", "StatelessIf", "Case", "StatelessCase")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Their kernels on a GPU copy the size of their result to the host.
_SIZES = ("Where", "Unique", "UniqueV2", "UniqueWithCounts", "DynamicPartition", "BooleanMask")
_NOTHING = ("NoOp", "Placeholder", "_Arg", "_Retval")


class Fault(NamedTuple):
    """An operation between two steps that waits, and why."""

    op: str  # type of the operation
    why: str  # "no kernel", "to host", "to device" or "size"
    where: str  # name of the operation, and dtypes

    def __str__(self) -> str:
        return f"{self.op}: {self.why} ({self.where})"


@functools.cache
def _kernels(op: str) -> tuple[Any, ...]:
    return tuple(
        kernel
        for kernel in kernels.get_registered_kernels_for_op(op).kernel
        if kernel.device_type in ("GPU", "DEFAULT")
    )


def gpu_kernel(op: tf.Operation) -> Any | None:
    """Returns the definition of the kernel that a GPU has for an operation; None: it has none."""
    found = [kernel for kernel in _kernels(op.type) if all(map(_allows(op), kernel.constraint))]
    return min(found, key=lambda kernel: kernel.device_type != "GPU", default=None)


def _allows(op: tf.Operation) -> Any:
    def allows(constraint: Any) -> bool:
        value = op.get_attr(constraint.name)
        values = value if isinstance(value, list) else [value]
        allowed = {tf.as_dtype(each) for each in constraint.allowed_values.list.type}
        return all(tf.as_dtype(each) in allowed for each in values)

    return allows


def faults(function: Any, host: str = "CPU:0") -> list[Fault]:
    """Returns the operations of the outermost loops of a ConcreteFunction that wait.

    An operation without a device, or of another device than `host`, is on the GPU if that has a
    kernel for it. A loop variable stays where its first value is.
    """
    placement = _Placement(host)
    graph = function.graph
    places = {id(graph_input): CPU for graph_input in graph.inputs}
    for each in graph.inputs:  # eager tensors of other dtypes than int32 are on the device
        if each.dtype not in (tf.int32, tf.resource, tf.string):
            places[id(each)] = DEVICE
    placement.follow(graph, places, inside=False)
    return list(dict.fromkeys(placement.faults))


class _Placement:
    """Follows the places of tensors through a graph and the functions that it calls."""

    def __init__(self, host: str) -> None:
        self.faults: list[Fault] = []
        self._host = host

    def follow(self, graph: Any, places: dict[int, str], inside: bool) -> list[str]:
        """Returns the places of the outputs of a graph.

        Args:
          graph: a FuncGraph.
          places: places of its inputs by the ID of the tensor, to which those of others are added.
          inside: whether the graph is within a loop.
        """
        for op in graph.get_operations():
            if op.type in _NOTHING:
                continue
            inputs = [places[id(tensor)] for tensor in op.inputs]
            outputs = self._outputs(op, inputs, inside)
            places.update((id(t), p) for t, p in zip(op.outputs, outputs, strict=True))
        return [places[id(tensor)] for tensor in graph.outputs]

    def _outputs(self, op: Any, inputs: list[str], inside: bool) -> list[str]:
        if op.type in _LOOPS:
            return self._loop(op, inputs)
        if op.type in _BRANCHES:
            return self._branch(op, inputs, inside)
        if op.type in _CALLS and not _compiled(op):
            return self._called(op, op.get_attr("f"), inputs, inside)
        if inputs and not _stateful(op) and all(place == CONSTANT for place in inputs):
            return [CONSTANT] * len(op.outputs)  # Grappler computes it once
        if op.type == "Const":
            return [CONSTANT]
        if self._host in op.device:
            return self._on_host(op, inputs, inside)
        if op.type in _CALLS:
            return [DEVICE] * len(op.outputs)
        return self._on_device(op, inputs, inside)

    def _on_host(self, op: Any, inputs: list[str], inside: bool) -> list[str]:
        if inside and DEVICE in inputs:
            self._fault(op, "to host")
        return [CPU] * len(op.outputs)

    def _on_device(self, op: Any, inputs: list[str], inside: bool) -> list[str]:
        if op.type == "Identity" and inputs == [HOST]:
            return inputs  # Grappler removes an Identity between operations on one device
        kernel = gpu_kernel(op)
        if kernel is None:
            if inside:
                self._fault(op, "no kernel")
            return self._on_host(op, inputs, inside)
        names = [*_argument_names(op.op_def.input_arg, op), *[""] * len(inputs)]
        on_host = set(kernel.host_memory_arg)
        for tensor, name, place in zip(op.inputs, names, inputs, strict=False):
            if tensor.dtype == tf.resource:
                continue
            if inside and name in on_host and place == DEVICE:
                self._fault(op, "to host")
            if inside and name not in on_host and place in (HOST, CPU) and op.type not in _SHAPES:
                self._fault(op, "to device")
        if inside and op.type in _SIZES:
            self._fault(op, "size")
        names = _argument_names(op.op_def.output_arg, op)
        return [HOST if name in on_host else DEVICE for name in names]

    def _loop(self, op: Any, inputs: list[str]) -> list[str]:
        first = [
            (HOST if tensor.dtype == tf.int32 else DEVICE) if place == CONSTANT else place
            for tensor, place in zip(op.inputs, inputs, strict=True)
        ]
        (condition,) = self._called(op, op.get_attr("cond"), first, inside=True)
        if condition == DEVICE:
            self._fault(op, "to host")
        after = self._called(op, op.get_attr("body"), first, inside=True)
        for tensor, before, now in zip(op.inputs, first, after, strict=True):
            if before in (HOST, CPU) and now == DEVICE and tensor.dtype != tf.resource:
                self._fault(op, "to host", f"variable {tensor.name}")
            if before == DEVICE and now in (HOST, CPU):
                self._fault(op, "to device", f"variable {tensor.name}")
        return first

    def _branch(self, op: Any, inputs: list[str], inside: bool) -> list[str]:
        predicate, *inputs = inputs
        if inside and predicate == DEVICE:
            self._fault(op, "to host")
        if "Case" in op.type:
            names = list(op.get_attr("branches"))
        else:
            names = [op.get_attr("then_branch"), op.get_attr("else_branch")]
        results = [self._called(op, name, inputs, inside) for name in names]
        return [
            next((place for place in (DEVICE, CPU, HOST) if place in places), CONSTANT)
            for places in zip(*results, strict=True)
        ]

    def _called(self, op: Any, name: Any, inputs: list[str], inside: bool) -> list[str]:
        name = getattr(name, "name", name)
        graph = _function_graph(op.graph, name)
        places = {id(t): place for t, place in zip(graph.inputs, inputs, strict=True)}
        return self.follow(graph, places, inside)

    def _fault(self, op: Any, why: str, what: str = "") -> None:
        types = ", ".join(tensor.dtype.name for tensor in op.inputs)
        self.faults.append(Fault(op.type, why, f"{what or op.name}: {types}"))


def _stateful(op: Any) -> bool:
    return op.op_def.is_stateful


def _compiled(op: Any) -> bool:
    try:
        return op.get_attr("_XlaMustCompile")
    except ValueError:
        return False


def _argument_names(arguments: Any, op: Any) -> Iterator[str]:
    """Yields the name of the argument of each tensor of an operation."""
    for argument in arguments:
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        else:
            count = 1
        yield from [argument.name] * count


def _function_graph(graph: Any, name: str) -> Any:
    """Returns the FuncGraph of a function that a graph calls."""
    while graph is not None:
        if (found := graph._functions.get(name)) is not None:
            return found.graph
        graph = getattr(graph, "outer_graph", None)
    raise KeyError(name)
