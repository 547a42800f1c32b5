"""Values that every replica has of its own, each on its device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def local_replicas(strategy: tf.distribute.Strategy) -> range:
    """The numbers of this machine's replicas, among those of all machines."""
    if strategy.num_replicas_in_sync == 1:
        return range(1)
    count = len(strategy.extended.worker_devices)
    resolver = strategy.cluster_resolver
    first = resolver.task_id * count if resolver is not None else 0
    return range(first, first + count)


def on_each_replica(strategy: tf.distribute.Strategy, make: Callable[[], Any]) -> Any:
    """Calls `make` once for each replica of this machine, in their order, on its device.

    tf.distribute's own iterators do more than this, and end late: to each device belongs a
    pipeline that TensorFlow tunes whatever its options say, by a thread that sleeps up to a minute
    and for which the one that takes the pipeline down waits.

    Args:
      strategy: whose replicas.
      make: gives a tensor, or a nest of them; all of one structure, shapes and dtypes.

    Returns:
      What `make` gave where there is one replica, else the same nest of per-replica values.
    """
    if strategy.num_replicas_in_sync == 1:
        return make()
    devices = strategy.extended.worker_devices

    def on_its_device(context: Any) -> Any:
        with tf.device(devices[int(context.replica_id_in_sync_group) % len(devices)]):
            return tf.nest.map_structure(tf.identity, make())

    return strategy.experimental_distribute_values_from_function(on_its_device)
