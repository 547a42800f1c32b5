"""Adding up what replicas and shards contribute."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Tensors = list[tf.Tensor]
Reduction = Callable[[Sequence[tf.Tensor]], Tensors]


def all_reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
    """Sums of each tensor over the replicas; call in replica context. One replica: unchanged."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)
    # A tensor that comes straight into a function has no device, which collectives ask for.
    tensors = [tf.identity(tensor) for tensor in tensors]
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))


def tree_reduce(stacks: Sequence[tf.Tensor]) -> Tensors:
    """Sums over all shards of all replicas, to the same bits for any number of replicas.

    Each stack is float32 [local shards, ...], and their numbers are powers of two. Neighbours are
    added first, then neighbouring sums: one binary tree over all shards. The shards of a replica
    are a subtree of it, so one tensor a replica travels; sums of replicas are gathered and added
    on each of them in the same order.
    """
    sums = [_tree(stack) for stack in stacks]
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return sums
    replica = tf.cast(context.replica_id_in_sync_group, tf.float32)
    flat = tf.concat([[replica], *(tf.reshape(part, [-1]) for part in sums)], 0)
    gathered = context.all_gather(flat[tf.newaxis], axis=0)
    gathered = tf.ensure_shape(gathered, [context.num_replicas_in_sync, *flat.shape])
    # Several machines come in the order of their names, in which 10 stands before 2.
    in_order = tf.gather(gathered, tf.argsort(gathered[:, 0]))
    parts = tf.split(_tree(in_order[:, 1:]), [part.shape.num_elements() for part in sums])
    return [tf.reshape(part, like.shape) for part, like in zip(parts, sums, strict=True)]


def reductions(shards: int) -> tuple[Reduction, Reduction]:
    """(over what computes one micro-batch together, over all that contributes to a step).

    A virtual shard is computed on its own, at another time than the others, so nothing is added up
    inside it: to batch norm it is a batch.

    Args:
      shards: virtual shards; 0: none, each replica is a part of the micro-batch.
    """
    return (list, tree_reduce) if shards else (all_reduce, all_reduce)


def _tree(stack: tf.Tensor) -> tf.Tensor:
    """[a power of two, ...] to [...]."""
    while stack.shape[0] > 1:
        stack = stack[0::2] + stack[1::2]
    return stack[0]
