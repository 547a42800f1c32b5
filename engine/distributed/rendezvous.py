"""Rendezvous of the workers, which checks that all were started with the same options.

TensorFlow's wait for workers cannot be interrupted and may never end, so the rendezvous takes place
before TensorFlow is imported. A worker sends the chief {"worker": index, "of": number of workers,
"digest": string}; the chief answers {"go": true} when all have joined, or {"refuse": reason}.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from engine.distributed.cluster_config import ClusterConfig

_MAX_LINE = 1 << 16  # bytes; workers send only shorter messages
_RETRY_DELAY = 0.2  # seconds between two attempts to connect
_GRACE = 5.0  # additional seconds to wait for a connected chief, which reports missing workers


class Connection:
    """TCP connection that transfers JSON objects, one per line.

    Args:
      peer: connected socket.
      name: display name of the other end.

    Attributes:
      name: display name of the other end.
      heard: time of the last data received, in seconds of `time.monotonic`.
    """

    def __init__(self, peer: socket.socket, name: str) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.settimeout(5)
        self.name = name
        self.heard = time.monotonic()  # time of the last data received
        self._peer, self._rest, self._lock = peer, b"", threading.Lock()

    def fileno(self) -> int:
        """Returns the file descriptor of the socket, which a selector requires."""
        return self._peer.fileno()

    def send(self, **message: Any) -> None:
        """Sends the keyword arguments as a JSON object.

        Ignores an OSError, because `read` reports a broken connection.
        """
        with contextlib.suppress(OSError), self._lock:
            self._peer.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """Waits for data, at most until the timeout; returns the JSON objects that are complete.

        Returns:
          The objects as dicts; an empty list if none is complete or on a timeout; None if the
          connection has ended, or has sent invalid JSON, a value that is not an object, or an
          incomplete line of 64 KiB or more.
        """
        try:
            data = self._peer.recv(_MAX_LINE)
            *lines, self._rest = (self._rest + data).split(b"\n")
            messages = [json.loads(line) for line in lines]
        except TimeoutError:
            return []
        except (OSError, ValueError):
            return None
        self.heard = time.monotonic()
        valid = data and all(isinstance(message, dict) for message in messages)
        return messages if valid and len(self._rest) < _MAX_LINE else None

    def set_timeout(self, seconds: float) -> None:
        """Sets the timeout of `read` and `send` to `seconds`, but to at least 0.05 seconds."""
        self._peer.settimeout(max(0.05, seconds))

    def close(self) -> None:
        """Closes the connection."""
        self._peer.close()


def join_cluster(cluster: ClusterConfig, digest: str, seconds: float) -> dict[int, Connection]:
    """Waits until all workers have joined the cluster with the same digest of their options.

    Args:
      cluster: configuration of the cluster.
      digest: digest of the version and the options of this worker.
      seconds: maximum time to wait.

    Returns:
      Connections by worker index: on the chief, to each other worker; on any other worker, only to
      the chief, 0.

    Raises:
      RuntimeError: if a worker does not join within `seconds` or was started with another version,
        other options or in another cluster, or if the chief cannot listen on its port.
    """
    if not cluster.is_chief:
        return {0: _join(cluster, digest, seconds)}
    workers = _accept_workers(cluster, digest, seconds)
    for connection in workers:  # the port is free again, for TensorFlow's server
        connection.heard = time.monotonic()
        connection.send(go=True)
    return {worker: connection for connection, worker in workers.items()}


def _accept_workers(cluster: ClusterConfig, digest: str, seconds: float) -> dict[Connection, int]:
    """Waits on the chief until all other workers have joined; on an error, closes all connections.

    Returns:
      The worker index of each connection.

    Raises:
      RuntimeError: if a worker does not join within `seconds` or is refused, or if the chief cannot
        listen on its port.
    """
    joined: dict[Connection, int] = {}
    with _listen(cluster) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        deadline = time.monotonic() + seconds
        try:
            while len(joined) < len(cluster.workers) - 1:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    absent = set(range(1, len(cluster.workers))) - set(joined.values())
                    names = ", ".join(map(cluster.name, sorted(absent)))
                    _refuse(joined, f"{names} did not come within {seconds:g} s: see why, start it")
                for key, _ in selector.select(min(remaining, 1.0)):
                    if key.fileobj is listener:
                        peer, address = listener.accept()
                        connection = Connection(peer, f"{address[0]}:{address[1]}")
                        selector.register(connection, selectors.EVENT_READ, connection)
                    elif not _receive(cluster, digest, key.data, joined):
                        selector.unregister(key.fileobj)
                        key.data.close()
        except BaseException:
            joined.clear()
            raise
        finally:
            for key in selector.get_map().values():
                if key.data and key.data not in joined:
                    key.data.close()
    return joined


def _receive(
    cluster: ClusterConfig, digest: str, connection: Connection, joined: dict[Connection, int]
) -> bool:
    """Reads messages of a connection; adds the connection to `joined` if it is that of a worker.

    Args:
      cluster: configuration of the cluster.
      digest: digest of the version and the options of the chief.
      connection: connection with data to read.
      joined: worker index of each connection of a worker that has joined; changed in place. An
        ended connection is removed.

    Returns:
      Whether the connection is still open.

    Raises:
      RuntimeError: if the digest or the number of workers differs from that of the chief, or if the
        worker index is invalid or taken; the reason is also sent to this worker and all that have
        joined.
    """
    messages = connection.read()
    if messages is None:  # not a worker, or one that ended and may be restarted
        joined.pop(connection, None)
    for message in messages or ():
        worker = message.get("worker")
        if not isinstance(worker, int) or connection in joined:
            continue
        same = message.get("of") == len(cluster.workers) and message.get("digest") == digest
        if not same or not 0 < worker < len(cluster.workers) or worker in joined.values():
            _refuse(
                [connection, *joined],
                f"worker {worker} at {connection.name} was started with other options, in another "
                f"cluster or with another version than {cluster.name(0)}",
            )
        connection.name = cluster.name(worker)
        joined[connection] = worker
    return messages is not None


def _listen(cluster: ClusterConfig) -> socket.socket:
    _, port = cluster.address(0)
    try:
        return socket.create_server(("", port), backlog=len(cluster.workers))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise RuntimeError(f"{cluster.name(0)} cannot listen on port {port}: {reason}") from None


def _refuse(connections: Iterable[Connection], reason: str) -> NoReturn:
    for connection in connections:
        connection.send(refuse=reason)
    raise RuntimeError(reason)


def _join(cluster: ClusterConfig, digest: str, seconds: float) -> Connection:
    """Connects to the chief, and waits until all workers have joined; repeats failed attempts.

    Returns:
      The connection to the chief.

    Raises:
      RuntimeError: if the chief does not answer within `seconds`, refuses this worker, or does not
        find all workers in time.
    """
    deadline = time.monotonic() + seconds
    problem = "no answer"
    while (remaining := deadline - time.monotonic()) > 0:
        try:
            chief = _connect(cluster, remaining)
        except OSError as error:
            problem = error.strerror or str(error)
        else:
            chief.send(worker=cluster.task, of=len(cluster.workers), digest=digest)
            if _wait_for_all(chief, seconds, deadline):
                return chief
            problem = "it closed the connection"
        time.sleep(_RETRY_DELAY)
    raise RuntimeError(
        f"{cluster.name(0)} did not answer within {seconds:g} s ({problem}): see why, and start it"
    )


def _wait_for_all(chief: Connection, seconds: float, deadline: float) -> bool:
    """Waits until the chief reports that all workers have joined.

    Args:
      chief: connection to the chief; closed unless all workers have joined.
      seconds: maximum time that the chief waits, for the error message.
      deadline: end of that time, in seconds of `time.monotonic`; `_GRACE` seconds are added.

    Returns:
      True once all workers have joined; False if the chief disconnects.

    Raises:
      RuntimeError: if the chief refuses this worker, or does not answer in time.
    """
    while (remaining := deadline + _GRACE - time.monotonic()) > 0:
        chief.set_timeout(min(0.5, remaining))
        messages = chief.read()
        for message in messages or ():
            if message.get("go") is True:
                chief.set_timeout(5)
                return True
            if "refuse" in message:
                chief.close()
                raise RuntimeError(str(message["refuse"]))
        if messages is None:
            chief.close()
            return False
    chief.close()
    raise RuntimeError(f"{chief.name} did not find all workers within {seconds:g} s")


def _connect(cluster: ClusterConfig, seconds: float) -> Connection:
    timeout = max(_RETRY_DELAY, min(5.0, seconds))
    peer = socket.create_connection(cluster.address(0), timeout=timeout)
    if peer.getsockname() == peer.getpeername():  # TCP may connect a free local port to itself
        peer.close()
        raise ConnectionRefusedError(0, "no answer")
    return Connection(peer, cluster.name(0))
