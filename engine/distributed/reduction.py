"""Reductions over replicas and virtual shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Tensors = list[tf.Tensor]
Reduction = Callable[[Sequence[tf.Tensor]], Tensors]


def all_reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
    """Sums each tensor over the replicas (one replica: unchanged); call in replica context."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)

    def reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
        # A function's input has no device, and collectives require one.
        tensors = [tf.identity(tensor) for tensor in tensors]
        return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))

    return _for_each_dtype(reduce, tensors)


def tree_reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
    """Sums each tensor over the replicas in a binary tree; call in replica context.

    Adds the tensors of neighbouring replicas first, then neighbouring sums. If each replica's
    float32 tensors are such sums over its virtual shards, the results are bitwise identical for any
    number of replicas. The numbers of replicas and of shards must be powers of two.
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
    """Returns two reductions over replicas: for batch norm in a micro-batch, for a step's sums.

    With virtual shards (`shards` > 0), the first is the identity: shards are computed separately,
    and batch normalization treats each shard as a batch.
    """
    return (list, tree_reduce) if shards else (all_reduce, all_reduce)
