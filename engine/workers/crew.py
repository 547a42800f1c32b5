"""What the workers agree on between two calls of the graph, and the strategy that joins them."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy
from tensorflow.python.eager import context as eager_context

from engine.workers.company import Company

_LAST_RESORT = (
    10.0  # seconds from the loss of a worker to the end of this process, whatever it does
)


class Crew:
    """All workers, as the host sees them; alone, it agrees with itself.

    Every worker must call the same methods in the same order: each is a collective operation.

    Args:
      company: entered; None: there is nobody else.
    """

    def __init__(self, company: Company | None = None) -> None:
        self._cluster = company.cluster if company else None
        self._peers = company.peers if company else None
        self._strategy: tf.distribute.Strategy | None = None
        self.is_chief = company is None or company.is_chief

    def __bool__(self) -> bool:
        """Whether there are others."""
        return self._cluster is not None

    def strategy(self) -> tf.distribute.Strategy:
        """TensorFlow's MultiWorkerMirroredStrategy over all workers and their GPUs; always the one.

        The first call is to come before anything else of TensorFlow's.

        Raises:
          RuntimeError: when TensorFlow cannot listen at this worker's address.
        """
        assert self._cluster is not None and self._peers is not None
        if self._strategy is not None:
            return self._strategy
        # TensorFlow's own service that watches over workers holds Python's lock while it waits for
        # them, takes SIGTERM for itself and ends all when its leader is done first. `Peers` does
        # what it does; both switches are private, and a test holds them in place.
        eager_context.context().configure_coordination_service(service_type="")
        collective_all_reduce_strategy.CollectiveAllReduceExtended._enable_check_health = False
        gpus = len(tf.config.list_physical_devices("GPU"))
        communication = tf.distribute.experimental.CommunicationImplementation
        self._peers.when_lost(self._end)
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
        self._gathered = tf.function(
            self._sum,
            autograph=False,
            input_signature=[tf.TensorSpec([len(self._cluster.workers), None], tf.int64)],
        )
        return self._strategy

    def gather(self, *values: int) -> list[list[int]]:
        """What each worker gives, the chief first."""
        if self._cluster is None:
            return [list(values)]
        table = np.zeros([len(self._cluster.workers), len(values)], np.int64)
        table[self._cluster.task] = values
        try:
            return self._gathered(tf.constant(table)).numpy().tolist()
        except tf.errors.OpError as error:
            raise RuntimeError(f"the workers cannot reach each other: {error.message}") from error

    def most(self, value: int) -> int:
        """The greatest of what the workers give."""
        return max(given[0] for given in self.gather(value))

    def of_chief(self, value: int) -> int:
        """What the chief gives."""
        return self.gather(value)[0][0]

    def same(self, what: str, value: int) -> None:
        """Makes sure that all workers give the same.

        Raises:
          RuntimeError: naming what is not the same, and what each has.
        """
        given = [row[0] for row in self.gather(value)]
        if len(set(given)) > 1:
            raise RuntimeError(
                f"the workers do not have the same {what}: {given}, worker by worker"
            )

    def _sum(self, table: tf.Tensor) -> tf.Tensor:
        assert self._strategy is not None
        strategy = self._strategy

        def on_replica(table: tf.Tensor) -> tf.Tensor:
            replica = tf.distribute.get_replica_context()
            # Only one of a worker's replicas speaks for it.
            first = tf.equal(replica.replica_id_in_sync_group % local, 0)
            spoken = tf.where(first, table, tf.zeros_like(table))
            return replica.all_reduce(tf.distribute.ReduceOp.SUM, [spoken])[0]

        local = len(strategy.extended.worker_devices)
        return strategy.experimental_local_results(strategy.run(on_replica, args=(table,)))[0]

    def _end(self, why: str) -> None:
        """Ends what waits in the graph for a lost worker, and in the end this process."""
        if self._strategy is not None:
            eager_context.context().abort_collective_ops(tf.errors.UNAVAILABLE, why)

        def last_resort() -> None:
            time.sleep(_LAST_RESORT)
            os.write(2, f"error: {why}\n".encode())
            os._exit(1)

        threading.Thread(target=last_resort, daemon=True).start()
