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


def tree_reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
    """Sums of each tensor over the replicas, added as a binary tree; call in replica context.

    Neighbours are added first, then neighbouring sums. Where each replica's tensors are such sums
    over its own shards, all of it is one tree over all shards, to the same bits for any number of
    replicas; both numbers are powers of two.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return list(tensors)
    replica = tf.cast(context.replica_id_in_sync_group, tf.float32)
    flat = tf.concat([[replica], *(tf.reshape(tensor, [-1]) for tensor in tensors)], 0)
    gathered = tf.ensure_shape(
        context.all_gather(flat[tf.newaxis], axis=0), [replicas, *flat.shape]
    )
    # Several machines come in the order of their names, in which 10 stands before 2.
    stack = tf.gather(gathered, tf.argsort(gathered[:, 0]))[:, 1:]
    while stack.shape[0] > 1:
        stack = stack[0::2] + stack[1::2]
    parts = tf.split(stack[0], [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, like.shape) for part, like in zip(parts, tensors, strict=True)]


def reductions(shards: int) -> tuple[Reduction, Reduction]:
    """(over what computes one micro-batch together, over all that contributes to a step).

    A virtual shard is computed on its own, at another time than the others, so nothing is added up
    inside it: to batch norm it is a batch.

    Args:
      shards: virtual shards; 0: none, each replica is a part of the micro-batch.
    """
    return (list, tree_reduce) if shards else (all_reduce, all_reduce)
