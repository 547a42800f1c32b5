"""Detection of lost workers by `LivenessMonitor`, over socket pairs in one process."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.distributed.cluster import LivenessMonitor
from engine.distributed.cluster_config import ClusterConfig
from engine.distributed.rendezvous import Connection

HOSTS = tuple(f"host{worker}:2222" for worker in range(3))


def linked(
    count: int, silence: float = 30.0
) -> tuple[list[LivenessMonitor], dict[int, socket.socket]]:
    """Returns the monitors of `count` workers, and the sockets of all workers but the chief."""
    hosts = HOSTS[:count]
    pairs = {worker: socket.socketpair(socket.AF_UNIX) for worker in range(1, count)}
    # Unix sockets do not have the options of TCP.
    made = {w: [_connection(end, f"of {w}") for end in pair] for w, pair in pairs.items()}
    chief = LivenessMonitor(
        ClusterConfig(hosts, 0), {w: ends[0] for w, ends in made.items()}, silence
    )
    others = [
        LivenessMonitor(ClusterConfig(hosts, w), {0: ends[1]}, silence) for w, ends in made.items()
    ]
    return [chief, *others], {worker: pair[1] for worker, pair in pairs.items()}


class _NoTcp(socket.socket):
    def setsockopt(self, *arguments):
        pass


def _connection(end: socket.socket, name: str) -> Connection:
    return Connection(_NoTcp(end.family, end.type, fileno=end.detach()), name)


def until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def leave(peers: list[LivenessMonitor]) -> list:
    with ThreadPoolExecutor(len(peers)) as pool:
        return [pool.submit(each.leave) for each in peers]


def test_leave_waits_for_all():
    peers, _ = linked(3)
    time.sleep(0.1)
    assert all(outcome.result() is None for outcome in leave(peers))
    assert [each.lost for each in peers] == [None] * 3


def test_failure_reaches_all_workers():
    peers, _ = linked(3)
    peers[2].fail("disk full")
    until(lambda: peers[0].lost and peers[1].lost)
    for each in peers[:2]:
        assert each.lost == "worker 2 (host2:2222) ended: disk full"
    peers[2].close()
    for outcome in leave(peers[:2]):
        with pytest.raises(RuntimeError, match="disk full"):
            outcome.result()


def test_closed_connection():
    peers, _ = linked(3)
    peers[1]._connections[0]._peer.shutdown(socket.SHUT_RDWR)
    until(lambda: peers[0].lost and peers[2].lost)
    for each in (peers[0], peers[2]):
        assert each.lost == "worker 1 (host1:2222) is gone: its connection ended"
    leave(peers)


def test_silent_worker():
    hosts = HOSTS[:2]
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    chief = LivenessMonitor(ClusterConfig(hosts, 0), {1: _connection(ours, "of 1")}, silence=1.5)
    until(lambda: chief.lost)  # the other end stays open and sends nothing
    assert chief.lost == "worker 1 (host1:2222) has been silent for 1.5 s"
    theirs.close()
    chief.close()


def test_late_callback_runs_at_once():
    peers, _ = linked(2)
    peers[1].fail("why")
    until(lambda: peers[0].lost)
    told = []
    peers[0].on_failure(told.append)
    assert told == ["worker 1 (host1:2222) ended: why"]
    for each in peers:
        each.close()
