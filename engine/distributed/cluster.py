"""Connects the workers of a cluster before TensorFlow is imported, and monitors them.

The chief has a connection to each other worker; there are no other connections. Both ends send JSON
lines: {} as a heartbeat every second, {"lost": reason} after a failure, {"bye": true} before a
regular end.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable, Mapping

from engine.distributed import cluster_config
from engine.distributed.cluster_config import ClusterConfig
from engine.distributed.options import DeviceOptions
from engine.distributed.rendezvous import Connection, join_cluster

_HEARTBEAT = 1.0  # seconds between two heartbeats


class Cluster:
    """Context manager of the membership of this process in a cluster of workers.

    Entry waits until all workers have joined, and a regular exit until all have finished. A worker
    that exits with an error sends the error to the other workers, and does not wait for them. When
    a worker is lost, the other workers end with a one-line error that names the lost worker. If the
    strategy is not "multi_worker", entry and exit do nothing.

    Args:
      options: options of the devices and the cluster.
      environment: environment variables, which define the cluster.
      digest: digest of the version and the options, which must be the same on all workers.

    Attributes:
      cluster: configuration of the cluster; None if the strategy is not "multi_worker".
      peers: monitor of the other workers; None before entry and without a cluster.

    Raises:
      ValueError: if the configuration of the cluster is missing or invalid.
      RuntimeError: at entry, if the workers do not join, see `join_cluster`; at exit, if a worker
        is lost.
    """

    def __init__(
        self, options: DeviceOptions, environment: Mapping[str, str], digest: str = ""
    ) -> None:
        self.cluster: ClusterConfig | None = None
        self.peers: LivenessMonitor | None = None
        self._digest, self._timeout = digest, options.cluster_timeout
        if options.strategy == "multi_worker":
            self.cluster = cluster_config.read(options.cluster, environment)

    def __enter__(self) -> Cluster:
        if self.cluster is not None:
            connections = join_cluster(self.cluster, self._digest, self._timeout)
            self.peers = LivenessMonitor(self.cluster, connections)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.peers is None:
            return
        if error is None:
            self.peers.leave()
            return
        if isinstance(error, RuntimeError):
            # TensorFlow may detect the loss of a worker before the liveness monitor does.
            deadline = time.monotonic() + 3
            while self.peers.lost is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self.peers.lost:
                raise RuntimeError(self.peers.lost) from error
        self.peers.fail(" ".join(str(error).split()) or type(error).__name__)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief or the only worker, which writes the run directory."""
        return self.cluster is None or self.cluster.is_chief


class LivenessMonitor:
    """Monitor of the other workers, in a background thread.

    A worker whose connection ends before it has finished, or that sends nothing for `silence`
    seconds, is lost. The worker that detects the loss reports the loss to the other workers,
    through the chief.

    Args:
      cluster: configuration of the cluster.
      connections: connections to other workers by worker index, as `join_cluster` returns them.
      silence: maximum time without data from a worker, in seconds.

    Attributes:
      lost: reason why a worker was lost; None if none was.
    """

    def __init__(
        self, cluster: ClusterConfig, connections: Mapping[int, Connection], silence: float = 30.0
    ) -> None:
        self.lost: str | None = None  # reason why a worker was lost; None: none was
        self._cluster, self._connections, self._silence = cluster, connections, silence
        self._finished: set[int] = set()
        self._disconnected: set[int] = set()
        self._on_loss: Callable[[str], None] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peers")
        self._thread.start()

    def on_failure(self, call: Callable[[str], None]) -> None:
        """Registers a function that is called with the reason when a worker is lost.

        The function is called in the monitoring thread, or at once if a worker is lost already. It
        replaces a function that was registered earlier.

        Args:
          call: takes the reason, one line of text that names the worker.
        """
        self._on_loss = call
        if self.lost:
            call(self.lost)

    def fail(self, reason: str) -> None:
        """Sends the reason why this worker ends, one line of text, to the other workers."""
        self._broadcast(lost=f"{self._cluster.name(self._cluster.task)} ended: {reason}")

    def leave(self) -> None:
        """Waits until all workers have finished, then stops monitoring and closes the connections.

        So no worker exits while another may still communicate with it.

        Raises:
          RuntimeError: if a worker is lost; monitoring is stopped and connections are closed then,
            too.
        """
        if not self._cluster.is_chief:
            self._broadcast(bye=True)
        while not self.lost and len(self._finished) < len(self._connections):
            time.sleep(0.02)
        if self._cluster.is_chief and self.lost is None:
            self._broadcast(bye=True)
        self.close()
        if self.lost:
            raise RuntimeError(self.lost)

    def close(self) -> None:
        """Stops monitoring and closes the connections."""
        self._closing.set()
        self._thread.join()
        for connection in self._connections.values():
            connection.close()

    def _broadcast(self, **message: object) -> None:
        for worker, connection in self._connections.items():
            if worker not in self._disconnected:
                connection.send(**message)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for worker, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, worker)
            last_beat, last_turn = 0.0, time.monotonic()
            while not self._closing.is_set():
                if time.monotonic() - last_beat >= _HEARTBEAT:
                    self._broadcast()
                    last_beat = time.monotonic()
                for key, _ in selector.select(_HEARTBEAT / 2):
                    if not self._read(key.data):
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                suspended, last_turn = now - last_turn > 5 * _HEARTBEAT, now
                for worker, connection in self._connections.items():
                    if suspended:  # not the other workers but this process: restart the timers
                        connection.heard = now
                    expected = worker not in self._finished | self._disconnected
                    if expected and now - connection.heard > self._silence:
                        name = self._cluster.name(worker)
                        self._lose(f"{name} has been silent for {self._silence:g} s")

    def _read(self, worker: int) -> bool:
        """Reads and handles the messages of a worker; returns whether the connection is open."""
        messages = self._connections[worker].read()
        for message in messages or ():
            if message.get("bye") is True:
                self._finished.add(worker)
            if "lost" in message:
                self._lose(str(message["lost"]))
        if messages is None:
            self._disconnected.add(worker)
            if worker not in self._finished:
                self._lose(f"{self._cluster.name(worker)} is gone: its connection ended")
        return messages is not None

    def _lose(self, reason: str) -> None:
        if self.lost is None and not self._closing.is_set():
            self.lost = reason
            self._broadcast(lost=reason)
            if self._on_loss:
                self._on_loss(reason)
