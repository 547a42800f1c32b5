"""Reductions over replicas and virtual shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Tensors = list[tf.Tensor]
Reduction = Callable[[Sequence[tf.Tensor]], Tensors]


def all_reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
    """Returns the sum of each tensor over the replicas; called in replica context.

    The tensors of a dtype are packed into one vector, and reduced together: one communication
    instead of one for each tensor, with the same bits, because each element is added by itself.
    With a single replica, the tensors are returned unchanged.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)

    def reduce(tensors: Sequence[tf.Tensor]) -> Tensors:
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, _packed(tensors))
        return _unpacked(total, tensors)

    return _for_each_dtype(reduce, tensors)


def pairwise_sum(one: Sequence[tf.Tensor], other: Sequence[tf.Tensor]) -> Tensors:
    """Returns the sum of each tensor of one list and that of another list.

    The graph optimizer may replace additions of additions by one operation that adds in another
    order; it keeps the order of these.
    """
    return [tf.ensure_shape(a + b, a.shape) for a, b in zip(one, other, strict=True)]


def of_micro_batch(reduction: Reduction) -> Reduction:
    """Returns `list`, the identity, if there is a single replica, otherwise `reduction`.

    Called in replica context. The forward pass computes batch norm in fewer passes if no other
    replica shares its micro-batch, which it knows by `list`.
    """
    single = tf.distribute.get_replica_context().num_replicas_in_sync == 1
    return list if single else reduction


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
        flat = _packed([replica, *tensors])
        gathered = context.all_gather(flat[tf.newaxis], axis=0)
        gathered = tf.ensure_shape(gathered, [replicas, *flat.shape])
        # With several machines, the order of all_gather is that of the device names, in which 10
        # precedes 2: sort by replica.
        stack = tf.gather(gathered, tf.argsort(gathered[:, 0]))[:, 1:]
        while stack.shape[0] > 1:
            stack = stack[0::2] + stack[1::2]
        return _unpacked(stack[0], tensors)

    return _for_each_dtype(reduce, tensors)


def _packed(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns all elements of tensors of the same dtype as one vector."""
    if len(tensors) == 1:  # a function's input has no device, and collectives require one
        return tf.identity(tf.reshape(tensors[0], [-1]))
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def _unpacked(vector: tf.Tensor, like: Sequence[tf.Tensor]) -> Tensors:
    """Returns the parts of a vector in the shapes of the tensors `like`, which are static."""
    parts = tf.split(vector, [tensor.shape.num_elements() for tensor in like])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, like, strict=True)]


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
