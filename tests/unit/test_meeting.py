"""Workers that meet before TensorFlow, in threads on the loopback address."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from engine.workers.cluster import Cluster
from engine.workers.meeting import meet
from tests.harness import tf_configs


def clusters(count: int) -> list[Cluster]:
    from engine.workers.cluster import read

    return [read("tf_config", {"TF_CONFIG": config}) for config in tf_configs(count)]


def all_meet(found: list[Cluster], digests: list[str], seconds: float) -> list[Future]:
    with ThreadPoolExecutor(len(found)) as pool:
        return [
            pool.submit(meet, cluster, digest, seconds)
            for cluster, digest in zip(found, digests, strict=True)
        ]


def close(outcomes: list[Future]) -> None:
    for outcome in outcomes:
        for connection in outcome.result().values():
            connection.close()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_all_workers_find_one_another_and_the_port_is_free_again(count):
    found = clusters(count)
    outcomes = all_meet(found, ["same"] * count, 30)
    assert set(outcomes[0].result()) == set(range(1, count))
    assert all(set(outcome.result()) == {0} for outcome in outcomes[1:])
    with socket.socket() as server:  # while the connections are open, as TensorFlow's server will
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", found[0].address(0)[1]))
        server.listen()
    close(outcomes)


def test_a_worker_may_come_late_and_be_started_again():
    chief, worker, other = clusters(3)
    with ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(meet, chief, "same", 30)
        time.sleep(0.3)
        with socket.create_connection(chief.address(0)) as first:  # says who it is, and dies
            first.sendall(b'{"worker": 1, "of": 3, "digest": "same"}\n')
        time.sleep(0.3)
        joined = [pool.submit(meet, each, "same", 30) for each in (other, worker)]
        assert set(waiting.result()) == {1, 2}
    close([waiting, *joined])


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"[]\n",
        b'{"worker": "1"}\n',
        b'{"go": true}\n',
        b"\xff" * 100_000,
    ],
)
def test_strangers_at_the_port_are_ignored(said):
    chief, worker = clusters(2)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(meet, chief, "same", 30)
        time.sleep(0.2)
        with socket.create_connection(chief.address(0)) as stranger:
            stranger.sendall(said)
            joined = pool.submit(meet, worker, "same", 30)
            close([waiting, joined])


def test_who_does_not_come_is_named_and_those_who_came_are_told():
    found = clusters(3)
    outcomes = all_meet(found[:2], ["same"] * 2, 1)
    for outcome in outcomes:
        with pytest.raises(
            RuntimeError, match=r"worker 2 \(127\.0\.0\.1:\d+\) did not come within"
        ):
            outcome.result()


def test_an_absent_chief_is_named():
    _, worker = clusters(2)
    with pytest.raises(RuntimeError, match=r"worker 0 \(127.0.0.1:\d+\) did not answer within"):
        meet(worker, "same", 0.5)


def test_workers_that_were_started_otherwise_refuse_each_other_at_once():
    since = time.monotonic()
    outcomes = all_meet(clusters(2), ["one", "other"], 60)
    for outcome in outcomes:
        with pytest.raises(RuntimeError, match="was started with other options"):
            outcome.result()
    assert time.monotonic() - since < 30


def test_two_that_say_they_are_the_same_worker_are_refused():
    found = clusters(3)
    outcomes = all_meet([found[0], found[1], found[1]], ["same"] * 3, 30)
    with pytest.raises(RuntimeError, match=r"worker 1 at .* was started"):
        outcomes[0].result()


def test_a_port_that_is_taken_is_named():
    chief, _ = clusters(2)
    with socket.socket() as other:
        other.bind(("", chief.address(0)[1]))
        other.listen()
        with pytest.raises(RuntimeError, match="cannot listen on port"):
            meet(chief, "same", 5)


def test_no_thread_is_left():
    before = threading.active_count()
    close(all_meet(clusters(2), ["same"] * 2, 30))
    assert threading.active_count() == before
