"""Collective operations on host values between workers, and the multi-worker strategy."""

from __future__ import annotations

import builtins
import os
import threading
import time

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy
from tensorflow.python.eager import context as eager_context

from engine.distributed.cluster import Cluster

_EXIT_DELAY = 10.0  # seconds from the loss of a worker to the forced exit of this process


class HostCollectives:
    """Collective operations on one integer of 64 bits per worker.

    All workers must call `max`, `broadcast` and `same` in the same order, after `strategy`. These
    methods raise RuntimeError if the workers cannot reach each other. Without a cluster, `max` and
    `broadcast` return `value`, and `same` does nothing.

    Args:
      cluster: cluster that was entered; None: this process is the only worker.

    Attributes:
      is_chief: whether this process is the chief or the only worker.
    """

    def __init__(self, cluster: Cluster | None = None) -> None:
        self._cluster = cluster.cluster if cluster else None
        self._peers = cluster.peers if cluster else None
        self._strategy: tf.distribute.Strategy | None = None
        self.is_chief = cluster is None or cluster.is_chief

    def __bool__(self) -> bool:
        """Returns whether the run uses a cluster of workers (`--strategy=multi_worker`)."""
        return self._cluster is not None

    def strategy(self) -> tf.distribute.Strategy:
        """Returns the MultiWorkerMirroredStrategy over the GPUs, or the CPUs, of all workers.

        The first call creates the strategy, and must precede TensorFlow's first operation. Requires
        a cluster. From this call on, the process ends if a worker is lost.

        Raises:
          RuntimeError: if TensorFlow cannot start its server at the address of this worker.
        """
        assert self._cluster is not None and self._peers is not None
        if self._strategy is not None:
            return self._strategy
        # TensorFlow's coordination service holds the GIL while it waits for workers, handles
        # SIGTERM itself, and ends all workers if its leader finishes first: `LivenessMonitor`
        # replaces it. Both settings are private in TensorFlow; a test fails if one changes.
        eager_context.context().configure_coordination_service(service_type="")
        collective_all_reduce_strategy.CollectiveAllReduceExtended._enable_check_health = False
        gpus = len(tf.config.list_physical_devices("GPU"))
        communication = tf.distribute.experimental.CommunicationImplementation
        self._peers.on_failure(self._end)
        try:
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy(
                tf.distribute.cluster_resolver.SimpleClusterResolver(
                    tf.train.ClusterSpec({"worker": list(self._cluster.workers)}),
                    task_type="worker",
                    task_id=self._cluster.task,
                    num_accelerators={"GPU": gpus},
                    rpc_layer="grpc",
                ),
                communication_options=tf.distribute.experimental.CommunicationOptions(
                    implementation=communication.AUTO if gpus else communication.RING
                ),
            )
        except tf.errors.OpError as error:
            name = self._cluster.name(self._cluster.task)
            raise RuntimeError(f"{name} cannot start TensorFlow's server: {error}") from error
        if self._peers.lost:
            self._end(self._peers.lost)
        self._sum_over_workers = tf.function(
            self._sum,
            autograph=False,
            input_signature=[tf.TensorSpec([len(self._cluster.workers)], tf.int64)],
        )
        return self._strategy

    def max(self, value: int) -> int:
        """Returns the maximum of the workers' values, on every worker.

        Raises:
          RuntimeError: if the workers cannot reach each other.
        """
        return builtins.max(self._gather(value))

    def broadcast(self, value: int) -> int:
        """Returns the chief's value on every worker.

        Raises:
          RuntimeError: if the workers cannot reach each other.
        """
        return self._gather(value)[0]

    def same(self, what: str, value: int) -> None:
        """Checks that all workers have the same value.

        Args:
          what: name of the value, for the error message.
          value: value of this worker.

        Raises:
          RuntimeError: if the values differ, in which case the message lists the value of each
            worker; or if the workers cannot reach each other.
        """
        values = self._gather(value)
        if len(set(values)) > 1:
            raise RuntimeError(
                f"the workers do not have the same {what}: {values}, worker by worker"
            )

    def _gather(self, value: int) -> list[int]:
        """Returns the values of all workers, the chief's first.

        Raises:
          RuntimeError: if the workers cannot reach each other.
        """
        if self._cluster is None:
            return [value]
        values = np.zeros(len(self._cluster.workers), np.int64)
        values[self._cluster.task] = value
        try:
            return self._sum_over_workers(tf.constant(values)).numpy().tolist()
        except tf.errors.OpError as error:
            raise RuntimeError(f"the workers cannot reach each other: {error.message}") from error

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        strategy = self.strategy()
        local_replicas = len(strategy.extended.worker_devices)

        def on_replica(values: tf.Tensor) -> tf.Tensor:
            replica = tf.distribute.get_replica_context()
            # Only one replica of each worker contributes its values.
            is_first = tf.equal(replica.replica_id_in_sync_group % local_replicas, 0)
            values = tf.where(is_first, values, tf.zeros_like(values))
            return replica.all_reduce(tf.distribute.ReduceOp.SUM, [values])[0]

        return strategy.experimental_local_results(strategy.run(on_replica, args=(values,)))[0]

    def _end(self, reason: str) -> None:
        """Aborts pending collective operations; ends the process after `_EXIT_DELAY` seconds.

        The aborted operations raise an error, which may end the process earlier. Otherwise the
        process prints `reason`, why a worker was lost, and exits with status 1.
        """
        if self._strategy is not None:
            eager_context.context().abort_collective_ops(tf.errors.UNAVAILABLE, reason)

        def force_exit() -> None:
            time.sleep(_EXIT_DELAY)
            os.write(2, f"error: {reason}\n".encode())
            os._exit(1)

        threading.Thread(target=force_exit, daemon=True).start()
