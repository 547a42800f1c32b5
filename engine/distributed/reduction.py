"""Reductions over replicas and virtual shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Tensors = list[tf.Tensor]
Reduction = Callable[[Sequence[tf.Tensor]], Tensors]


def all_reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
    """Returns the sum of each tensor over the replicas; called in replica context.

    With a single replica, the tensors are returned unchanged.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)

    def reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
        # A function's input has no device, and collectives require one.
        tensors = [tf.identity(tensor) for tensor in tensors]
        return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))

    return _for_each_dtype(reduce, tensors)


def tree_reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
    """Returns the sum of each tensor over the replicas, added in a binary tree.

    The tensors of neighbouring replicas are added first, then neighbouring sums. If the float32
    tensors of each replica are such sums over the virtual shards of the replica, the results are
    bitwise identical for any number of replicas. The numbers of replicas and of shards must be
    powers of two. Called in replica context.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return list(tensors)

    def reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
        replica = tf.cast(context.replica_id_in_sync_group, tensors[0].dtype)
        flat = tf.concat([[replica], *(tf.reshape(tensor, [-1]) for tensor in tensors)], 0)
        gathered = context.all_gather(flat[tf.newaxis], axis=0)
        gathered = tf.ensure_shape(gathered, [replicas, *flat.shape])
        # With several machines, the order of all_gather is that of the device names, in which 10
        # precedes 2: sort by replica.
        stack = tf.gather(gathered, tf.argsort(gathered[:, 0]))[:, 1:]
        while stack.shape[0] > 1:
            stack = stack[0::2] + stack[1::2]
        parts = tf.split(stack[0], [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, like.shape) for part, like in zip(parts, tensors, strict=True)]

    return _for_each_dtype(reduce, tensors)


def _for_each_dtype(reduce: Reduction, tensors: Sequence[tf.Tensor]) -> Tensors:
    """Reduces the tensors of each dtype together; returns all results in the order of `tensors`."""
    results: dict[int, tf.Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        indices = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
        results |= zip(indices, reduce([tensors[i] for i in indices]), strict=True)
    return [results[i] for i in range(len(tensors))]


def reductions(shards: int) -> tuple[Reduction, Reduction]:
    """Returns the reductions over replicas for batch norm and for the sums of a step.

    Args:
      shards: number of virtual shards; 0: none.

    Returns:
      The reduction of batch statistics in a micro-batch, and that of gradients, statistics and
      metric sums. Both are `all_reduce` without virtual shards. With virtual shards, the first
      returns the tensors unchanged, because batch normalization treats each shard as a batch; the
      second is `tree_reduce`.
    """
    return (list, tree_reduce) if shards else (all_reduce, all_reduce)
