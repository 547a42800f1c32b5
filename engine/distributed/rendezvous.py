"""Waits until all workers have joined, and checks that they were started with the same options.

TensorFlow's own wait cannot be interrupted and may never end, so the rendezvous precedes
TensorFlow's import. The chief listens on its port of the cluster configuration; the others connect
and identify themselves. The connections stay open, but the listening socket is closed, so that
TensorFlow's server can use the port. The messages:

    hello    worker -> chief    {"worker": 1, "of": 2, "digest": "..."}
    go       chief -> worker    {"go": true}
    refuse   chief -> worker    {"refuse": "why"}
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable
from typing import NoReturn

from engine.distributed.cluster_config import ClusterConfig
from engine.distributed.connection import Connection

_AGAIN = 0.2  # seconds between two attempts to connect
_GRACE = 5.0  # additional seconds to wait for a connected chief, which reports missing workers


def join_cluster(cluster: ClusterConfig, digest: str, seconds: float) -> dict[int, Connection]:
    """Waits until all workers have joined the cluster.

    Args:
      cluster: configuration of the cluster.
      digest: digest of the version and options, which must be the same on all workers.
      seconds: maximum time to wait, in seconds.

    Returns:
      The connections by worker index: on the chief, to all others; on the others, to the chief.

    Raises:
      RuntimeError: when a worker does not join in time or was started with other options, or when
        the chief cannot listen on its port.
    """
    gather_or_join = _gather if cluster.is_chief else _join
    return gather_or_join(cluster, digest, seconds)


def _gather(cluster: ClusterConfig, digest: str, seconds: float) -> dict[int, Connection]:
    there: dict[int, Connection] = {}
    open_ones: set[Connection] = set()
    try:
        with _listener(cluster) as listener, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            _receive(cluster, digest, seconds, selector, there, open_ones)
    except BaseException:
        there.clear()
        raise
    finally:
        for stranger in open_ones - set(there.values()):
            stranger.close()
    for connection in there.values():
        connection.set_timeout(5)
        connection.heard = time.monotonic()
        connection.send(go=True)
    return there


def _receive(
    cluster: ClusterConfig,
    digest: str,
    seconds: float,
    selector: selectors.BaseSelector,
    there: dict[int, Connection],
    open_ones: set[Connection],
) -> None:
    """Accepts connections until all workers have joined.

    Adds the workers that join to `there`, and every open connection to `open_ones`.

    Raises:
      RuntimeError: when a worker does not join in time or was started with other options.
    """
    deadline = time.monotonic() + seconds
    while len(there) < len(cluster.workers) - 1:
        left = deadline - time.monotonic()
        if left <= 0:
            absent = [w for w in range(1, len(cluster.workers)) if w not in there]
            names = ", ".join(map(cluster.name, absent))
            _refuse(there.values(), f"{names} did not come within {seconds:g} s: see why, start it")
        for key, _ in selector.select(min(left, 1.0)):
            if isinstance(key.fileobj, socket.socket):
                accepted, where = key.fileobj.accept()
                stranger = Connection(accepted, f"{where[0]}:{where[1]}")
                open_ones.add(stranger)
                selector.register(stranger, selectors.EVENT_READ)
                continue
            connection = key.fileobj
            assert isinstance(connection, Connection)
            messages = connection.read()
            if messages is None:  # not a worker, or one that ended and may be restarted
                selector.unregister(connection)
                connection.close()
                open_ones.discard(connection)
                for worker in [w for w, c in there.items() if c is connection]:
                    del there[worker]
            for message in messages or ():
                _welcome(cluster, digest, connection, message, there)


def _listener(cluster: ClusterConfig) -> socket.socket:
    _, port = cluster.address(0)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", port))
        listener.listen(len(cluster.workers))
    except OSError as error:
        listener.close()
        raise RuntimeError(
            f"{cluster.name(0)} cannot listen on port {port}: {error.strerror}"
        ) from None
    return listener


def _welcome(
    cluster: ClusterConfig, digest: str, connection: Connection, message: dict, there: dict
) -> None:
    """Adds the worker that a message names to `there`; ignores a message without a worker.

    Raises:
      RuntimeError: when the worker was started with other options, or its index is not valid or
        in use; the workers that have joined receive this error, too.
    """
    worker = message.get("worker")
    if not isinstance(worker, int) or connection in there.values():
        return
    alike = message.get("of") == len(cluster.workers) and message.get("digest") == digest
    if not alike or not 0 < worker < len(cluster.workers) or worker in there:
        _refuse(
            [connection, *there.values()],
            f"worker {worker} at {connection.name} was started with other options, in another "
            f"cluster or with another version than {cluster.name(0)}",
        )
    connection.name = cluster.name(worker)
    there[worker] = connection


def _refuse(connections: Iterable[Connection], why: str) -> NoReturn:
    for connection in connections:
        connection.send(refuse=why)
    raise RuntimeError(why)


def _join(cluster: ClusterConfig, digest: str, seconds: float) -> dict[int, Connection]:
    deadline = time.monotonic() + seconds
    chief: Connection | None = None
    last = "no answer"
    while (left := deadline + (_GRACE if chief else 0.0) - time.monotonic()) > 0:
        if chief is None:
            try:
                chief = _connect(cluster, left)
            except OSError as error:
                last = error.strerror or str(error)
                time.sleep(_AGAIN)
                continue
            chief.send(worker=cluster.task, of=len(cluster.workers), digest=digest)
        chief.set_timeout(min(0.5, left))
        messages = chief.read()
        if messages is None:
            chief.close()
            chief, last = None, "it closed the connection"
            time.sleep(_AGAIN)
        for message in messages or ():
            assert chief is not None
            if "refuse" in message:
                chief.close()
                raise RuntimeError(str(message["refuse"]))
            if message.get("go") is True:
                chief.set_timeout(5)
                return {0: chief}
    if chief is None:
        raise RuntimeError(
            f"{cluster.name(0)} did not answer within {seconds:g} s ({last}): see why, and start it"
        )
    chief.close()
    raise RuntimeError(f"{cluster.name(0)} did not find all workers within {seconds:g} s")


def _connect(cluster: ClusterConfig, seconds: float) -> Connection:
    peer = socket.create_connection(cluster.address(0), timeout=max(_AGAIN, min(5.0, seconds)))
    if peer.getsockname() == peer.getpeername():  # TCP may connect a free local port to itself
        peer.close()
        raise ConnectionRefusedError(0, "no answer")
    return Connection(peer, cluster.name(0))
