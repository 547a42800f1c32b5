"""The other workers of a run: are they alive?

Each worker but the chief has one connection, to the chief. Both ends say once a second that they
live. A connection that ends, or is silent for long, is a lost worker: whoever sees it tells the
others, through the chief.

    alive    both               {}
    lost     both               {"lost": "worker 1 (host:port) is gone ..."}
    bye      both               {"bye": true}    the end of this connection is no loss
"""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable, Mapping

from engine.workers.cluster import Cluster
from engine.workers.connection import Connection

_BEAT = 1.0  # seconds


class Peers:
    """Watches the others, in a thread of its own.

    Args:
      cluster: who they are.
      connections: to them, from the meeting.
      silence: seconds after which a worker that says nothing is lost.
    """

    def __init__(
        self, cluster: Cluster, connections: Mapping[int, Connection], silence: float = 30.0
    ) -> None:
        self.lost: str | None = None  # why, once a worker is
        self._cluster, self._connections, self._silence = cluster, dict(connections), silence
        self._left: set[int] = set()
        self._gone: set[int] = set()
        self._on_loss: Callable[[str], None] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peers")
        self._thread.start()

    def when_lost(self, call: Callable[[str], None]) -> None:
        """Has `call` told why, in the watching thread, when a worker is lost; at once if one is."""
        self._on_loss = call
        if self.lost:
            call(self.lost)

    def fail(self, why: str) -> None:
        """Tells the others that this worker ends with an error, so that they can say so."""
        self._tell(lost=f"{self._cluster.name(self._cluster.task)} ended: {why}")

    def leave(self) -> None:
        """Waits until all are done: none ends while another still needs it.

        Raises:
          RuntimeError: when one is lost.
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
        """Watches no longer, and ends the connections."""
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
                if now - turned > 5 * _BEAT:  # this process stood still: first hear what they said
                    for connection in self._connections.values():
                        connection.heard = now
                turned = now
                self._listen_for_silence(now)

    def _hear(self, worker: int) -> bool:
        """Whether the connection goes on."""
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
