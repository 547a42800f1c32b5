"""Recomputes a call in the backward pass, so that its activations are not kept until then.

Chen, Xu, Zhang and Guestrin, 2016, "Training deep nets with sublinear memory cost". Of a recomputed
call, only the inputs and the outputs are kept. The gradient calls again, with the same inputs and
random numbers, and differentiates that call. `tf.recompute_grad` does not do here: it adds 0 to the
inputs, which changes -0, lets XLA merge both calls on a CPU, and returns no gradient of a tensor
that the function takes from its closure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.eager import record

from engine.models.base import ForwardContext

_local = threading.local()  # A strategy calls each replica in a thread of its own.


def recomputed(
    call: Callable[..., Any],
    *arguments: Any,
    again: Callable[..., Any] | None = None,
    compiled_for: str = "",
) -> Any:
    """Returns `call(*arguments)`, whose gradient computes the call again.

    The gradient is that of each tensor and trainable variable that the call uses, in `arguments` or
    not. Nothing is computed again in eager execution, where no `tf.GradientTape` records, as in
    evaluation, and for a call inside another one that is recomputed.

    Args:
      call: function of `arguments` to nests of tensors.
      *arguments: nests of tensors and other values. In the second call, a `ForwardContext` among
        them has other lists of updates and penalties, which are ignored.
      again: function to call in the gradient, with the same result as `call`, by default `call`.
      compiled_for: type of the device that XLA compiles the graph for, "CPU" or "GPU"; "": XLA does
        not compile it.
    """
    if tf.executing_eagerly() or _is_inside() or not record.could_possibly_record():
        return call(*arguments)
    graph = tf.compat.v1.get_default_graph()
    before = len(graph.get_operations())
    with _inside(), record.VariableWatcher() as watcher:
        outputs = call(*arguments)
    leaves = tf.nest.flatten(outputs)
    results = [index for index, leaf in enumerate(leaves) if _is_floating(leaf)]
    given = list(filter(_is_recorded, _tensors(arguments).values()))
    # Those in `given` too: the call may also use them by other ways than as arguments.
    used = [*given, *_used(graph.get_operations()[before:], given)]
    values = {id(v): tf.convert_to_tensor(v) for v in watcher.watched_variables()}
    variables = [v for v in watcher.watched_variables() if _is_recorded(values[id(v)])]
    inputs = [*given, *used, *(values[id(variable)] for variable in variables)]
    if not results or not inputs:
        return outputs

    def gradients(upstream: Sequence[tf.Tensor]) -> list[Any]:
        with tf.control_dependencies(upstream):
            moved = _after(upstream, arguments, compiled_for)
            sources = [*(moved[id(each)] for each in given), *used, *variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape, _inside():
                tape.watch(sources)
                computed = tf.nest.flatten((again or call)(*_exchanged(arguments, moved)))
        found = [computed[index] for index in results]
        return tape.gradient(found, sources, output_gradients=upstream)

    def backward(*upstream: Any) -> list[Any]:
        dense = [tf.convert_to_tensor(each) for each in upstream]
        if compiled_for == "CPU":
            return _in_branch(lambda: gradients(dense), inputs, dense[0])
        return gradients(dense)

    # The results are other tensors than the call's, which the tape already knows.
    with record.stop_recording():
        for index in results:
            leaves[index] = tf.identity(leaves[index])
    record.record_operation("Recomputed", [leaves[i] for i in results], inputs, backward)
    return tf.nest.pack_sequence_as(outputs, leaves)


def _is_inside() -> bool:
    return getattr(_local, "inside", False)


@contextlib.contextmanager
def _inside() -> Iterator[None]:
    """Makes `recomputed` a plain call in this thread, in a `with` block."""
    outer, _local.inside = _is_inside(), True
    try:
        yield
    finally:
        _local.inside = outer


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating


def _is_recorded(leaf: Any) -> bool:
    """Returns whether a leaf is a floating tensor whose gradient a tape needs."""
    return _is_floating(leaf) and record.should_record_backprop([leaf])


def _tensors(arguments: Any) -> dict[int, tf.Tensor]:
    """Returns the tensors of a nest and of the contexts in it by `id`, without handles, strings."""
    leaves = tf.nest.flatten(arguments)
    for context in [leaf for leaf in leaves if isinstance(leaf, ForwardContext)]:
        noise = context.noise
        leaves += [context.mask, *((noise.step, noise.row) if noise else ())]
    others = (tf.resource, tf.variant, tf.string)
    tensors = [leaf for leaf in leaves if isinstance(leaf, tf.Tensor)]
    return {id(leaf): leaf for leaf in tensors if leaf.dtype not in others}


def _used(operations: Sequence[tf.Operation], given: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the inputs of operations that are not made by them, and whose gradient a tape needs.

    The tensors in `given` are left out.
    """
    # A placeholder stands for a tensor of an outer graph.
    made = {op.name for op in operations if op.type != "Placeholder"}
    known = {tensor.name for tensor in given if hasattr(tensor, "graph")}  # not of eager ones
    found: dict[str, tf.Tensor] = {}
    for tensor in (tensor for op in operations for tensor in op.inputs):
        if tensor.op.name not in made and tensor.name not in known and _is_recorded(tensor):
            found[tensor.name] = tensor
    return list(found.values())


def _after(
    upstream: Sequence[tf.Tensor], arguments: Any, compiled_for: str
) -> dict[int, tf.Tensor]:
    """Returns copies of the tensors in `arguments` that are available after `upstream`, by `id`.

    Otherwise TensorFlow would compute the second call together with the first, or as one with it,
    and the activations would be kept. Called in the scope of control dependencies on `upstream`,
    which XLA ignores: on a GPU, it does not optimize across a barrier.
    """
    tensors = _tensors(arguments)
    if compiled_for == "GPU" and tensors:
        values = [*tensors.values(), *upstream]
        copies = gen_xla_ops.xla_optimization_barrier(input=values)[: len(tensors)]
    else:
        copies = [tf.identity(tensor) for tensor in tensors.values()]
    return dict(zip(tensors, copies, strict=True))


def _exchanged(arguments: Any, copies: dict[int, tf.Tensor]) -> Any:
    """Returns arguments with copies, by `id`, in place of the tensors of nests and contexts."""

    def exchanged(leaf: Any) -> Any:
        if not isinstance(leaf, ForwardContext):
            return copies.get(id(leaf), leaf)
        mask, noise = copies.get(id(leaf.mask)), leaf.noise
        noise = noise and noise.at(copies[id(noise.step)], copies[id(noise.row)])
        return dataclasses.replace(leaf, mask=mask, noise=noise, updates=[], penalties=[])

    return tf.nest.map_structure(exchanged, arguments)


def _in_branch(
    compute: Callable[[], list[Any]], inputs: Sequence[tf.Tensor], upstream: tf.Tensor
) -> list[Any]:
    """Returns the gradients that `compute` returns, computed in a conditional branch.

    On a CPU, XLA removes barriers before it merges equal operations, but it merges none across a
    branch. The branch is always taken, which XLA cannot know.

    Args:
      compute: returns a gradient, or None, for each of `inputs`.
      inputs: tensors of the shapes and dtypes of the gradients.
      upstream: tensor after which the branch is computed, of any floating dtype.
    """
    known: list[int] = []

    def taken() -> list[tf.Tensor]:
        found = compute()
        known[:] = [index for index, gradient in enumerate(found) if gradient is not None]
        return [tf.convert_to_tensor(found[index]) for index in known]

    first = tf.cast(tf.reduce_max(tf.reshape(upstream, [-1])[:1]), tf.float32)
    ones = tf.raw_ops.PopulationCount(x=tf.bitcast(first, tf.int32))  # at most 32
    branch = tf.cond(ones <= 32, taken, lambda: [tf.zeros_like(inputs[i]) for i in known])
    results: list[Any] = [None] * len(inputs)
    for index, gradient in zip(known, branch, strict=True):
        results[index] = gradient
    return results
