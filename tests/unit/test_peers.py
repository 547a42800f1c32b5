"""Workers that watch one another, over real connections in one process."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.workers.cluster import Cluster
from engine.workers.connection import Connection
from engine.workers.peers import Peers

HOSTS = tuple(f"host{worker}:2222" for worker in range(3))


def linked(count: int, silence: float = 30.0) -> tuple[list[Peers], dict[int, socket.socket]]:
    """The peers of so many workers, and the sockets of the workers but the chief."""
    hosts = HOSTS[:count]
    pairs = {worker: socket.socketpair(socket.AF_UNIX) for worker in range(1, count)}
    # A pair of Unix sockets knows nothing of TCP's options.
    made = {w: [_connection(end, f"of {w}") for end in pair] for w, pair in pairs.items()}
    chief = Peers(Cluster(hosts, 0), {w: ends[0] for w, ends in made.items()}, silence)
    others = [Peers(Cluster(hosts, w), {0: ends[1]}, silence) for w, ends in made.items()]
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


def leave(peers: list[Peers]) -> list:
    with ThreadPoolExecutor(len(peers)) as pool:
        return [pool.submit(each.leave) for each in peers]


def test_those_who_are_done_wait_for_the_last_and_none_is_lost():
    peers, _ = linked(3)
    time.sleep(0.1)
    assert all(outcome.result() is None for outcome in leave(peers))
    assert [each.lost for each in peers] == [None] * 3


def test_a_worker_that_fails_tells_all_others_why():
    peers, _ = linked(3)
    peers[2].fail("disk full")
    until(lambda: peers[0].lost and peers[1].lost)
    for each in peers[:2]:
        assert each.lost == "worker 2 (host2:2222) ended: disk full"
    peers[2].close()
    for outcome in leave(peers[:2]):
        with pytest.raises(RuntimeError, match="disk full"):
            outcome.result()


def test_a_connection_that_ends_is_a_lost_worker_and_all_learn_which():
    peers, _ = linked(3)
    peers[1]._connections[0]._peer.shutdown(socket.SHUT_RDWR)
    until(lambda: peers[0].lost and peers[2].lost)
    for each in (peers[0], peers[2]):
        assert each.lost == "worker 1 (host1:2222) is gone: its connection ended"
    leave(peers)


def test_silence_is_a_lost_worker():
    hosts = HOSTS[:2]
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    chief = Peers(Cluster(hosts, 0), {1: _connection(ours, "of 1")}, silence=1.5)
    until(lambda: chief.lost)  # nobody speaks at the other end, and it stays open
    assert chief.lost == "worker 1 (host1:2222) has been silent for 1.5 s"
    theirs.close()
    chief.close()


def test_who_asks_late_is_told_of_a_loss_at_once():
    peers, _ = linked(2)
    peers[1].fail("why")
    until(lambda: peers[0].lost)
    told = []
    peers[0].when_lost(told.append)
    assert told == ["worker 1 (host1:2222) ended: why"]
    for each in peers:
        each.close()
