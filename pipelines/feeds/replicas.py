"""Indices of this worker's replicas, and values that are created on the device of each replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def local_replicas(strategy: tf.distribute.Strategy) -> range:
    """Returns the indices of this worker's replicas among the replicas of all workers."""
    if strategy.num_replicas_in_sync == 1:
        return range(1)
    count = len(strategy.extended.worker_devices)
    resolver = strategy.cluster_resolver
    first = resolver.task_id * count if resolver is not None else 0
    return range(first, first + count)


def per_replica_values(strategy: tf.distribute.Strategy, make: Callable[[], Any]) -> Any:
    """Calls `make` once for each replica of this worker, in order, on the replica's device.

    A single replica's `make` is called in the current device scope instead. The function replaces
    distributed datasets, whose iterators create a tf.data pipeline for each device that is
    autotuned whatever its options are; destroying such a pipeline waits up to a minute for the
    autotuner.

    Returns:
      The nest of tensors that `make` returns if there is one replica, else the same nest of
      per-replica values.
    """
    if strategy.num_replicas_in_sync == 1:
        return make()
    devices = strategy.extended.worker_devices

    def on_its_device(context: Any) -> Any:
        with tf.device(devices[int(context.replica_id_in_sync_group) % len(devices)]):
            return tf.nest.map_structure(tf.identity, make())

    return strategy.experimental_distribute_values_from_function(on_its_device)
