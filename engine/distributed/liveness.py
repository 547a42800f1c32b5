"""Monitors whether the other workers of a run are alive.

Each worker except the chief has one connection, to the chief. Both ends send a heartbeat once a
second. If a connection ends, or no message arrives for too long, the worker at its other end is
lost. The worker that detects the loss reports it to the others, through the chief. Messages, their
senders and contents:

    alive    both               {}
    lost     both               {"lost": "worker 1 (host:port) is gone ..."}
    bye      both               {"bye": true}    closing this connection is not a loss
"""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable, Mapping

from engine.distributed.cluster_config import ClusterConfig
from engine.distributed.connection import Connection

_BEAT = 1.0  # seconds between two heartbeats


class LivenessMonitor:
    """Monitors the other workers, in a background thread.

    Args:
      cluster: configuration of the cluster.
      connections: connections to the other workers, as `rendezvous.join_cluster` returns them.
      silence: seconds without a message after which a worker counts as lost.
    """

    def __init__(
        self, cluster: ClusterConfig, connections: Mapping[int, Connection], silence: float = 30.0
    ) -> None:
        self.lost: str | None = None  # reason why a worker was lost; None: none was
        self._cluster, self._connections, self._silence = cluster, dict(connections), silence
        self._left: set[int] = set()
        self._gone: set[int] = set()
        self._on_loss: Callable[[str], None] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peers")
        self._thread.start()

    def on_failure(self, call: Callable[[str], None]) -> None:
        """Registers a function that is called with the reason when a worker is lost.

        It runs in the monitor's thread, or at once in the caller's if a worker is lost already.
        """
        self._on_loss = call
        if self.lost:
            call(self.lost)

    def fail(self, why: str) -> None:
        """Reports to the other workers the error that ends this one, for them to display."""
        self._tell(lost=f"{self._cluster.name(self._cluster.task)} ended: {why}")

    def leave(self) -> None:
        """Waits until all workers have finished, then stops monitoring and closes the connections.

        No worker exits while another may still communicate with it.

        Raises:
          RuntimeError: when a worker is lost.
        """
        if not self._cluster.is_chief:
            self._tell(bye=True)
        while not self.lost and len(self._left) < len(self._connections):
            time.sleep(0.02)
        if self.lost is None and self._cluster.is_chief:
            self._tell(bye=True)
        self.close()
        if self.lost:
            raise RuntimeError(self.lost)

    def close(self) -> None:
        """Stops monitoring and closes the connections."""
        self._closing.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for connection in self._connections.values():
            connection.close()

    def _tell(self, **message: object) -> None:
        for worker, connection in self._connections.items():
            if worker not in self._gone:
                connection.send(**message)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for worker, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, worker)
            beaten = 0.0
            turned = time.monotonic()
            while not self._closing.is_set():
                if time.monotonic() - beaten >= _BEAT:
                    self._tell()
                    beaten = time.monotonic()
                for key, _ in selector.select(_BEAT / 2):
                    if not self._hear(key.data):
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                if now - turned > 5 * _BEAT:  # this process was suspended: restart timers
                    for connection in self._connections.values():
                        connection.heard = now
                turned = now
                self._listen_for_silence(now)

    def _hear(self, worker: int) -> bool:
        """Reads a worker's messages; returns whether its connection is still open."""
        messages = self._connections[worker].read()
        for message in messages or ():
            if message.get("bye") is True:
                self._left.add(worker)
            if "lost" in message:
                self._lose(str(message["lost"]))
        if messages is None:
            self._gone.add(worker)
            if worker not in self._left:
                self._lose(f"{self._cluster.name(worker)} is gone: its connection ended")
        return messages is not None

    def _listen_for_silence(self, now: float) -> None:
        for worker, connection in self._connections.items():
            expected = worker not in self._left | self._gone
            if expected and now - connection.heard > self._silence:
                self._lose(f"{self._cluster.name(worker)} has been silent for {self._silence:g} s")

    def _lose(self, why: str) -> None:
        if self.lost is None and not self._closing.is_set():
            self.lost = why
            self._tell(lost=why)
            if self._on_loss:
                self._on_loss(why)
