"""The rendezvous of workers before TensorFlow starts, in threads on the loopback address."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from engine.distributed.cluster_config import ClusterConfig
from engine.distributed.rendezvous import join_cluster
from tests.harness import tf_configs


def clusters(count: int) -> list[ClusterConfig]:
    from engine.distributed.cluster_config import read

    return [read("tf_config", {"TF_CONFIG": config}) for config in tf_configs(count)]


def all_meet(found: list[ClusterConfig], digests: list[str], seconds: float) -> list[Future]:
    with ThreadPoolExecutor(len(found)) as pool:
        return [
            pool.submit(join_cluster, cluster, digest, seconds)
            for cluster, digest in zip(found, digests, strict=True)
        ]


def close(outcomes: list[Future]) -> None:
    for outcome in outcomes:
        for connection in outcome.result().values():
            connection.close()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_workers_connect(count):
    """All workers connect, and the chief's port is free again."""
    found = clusters(count)
    outcomes = all_meet(found, ["same"] * count, 30)
    assert set(outcomes[0].result()) == set(range(1, count))
    assert all(set(outcome.result()) == {0} for outcome in outcomes[1:])
    with socket.socket() as server:  # while connections are open, as TensorFlow's server does
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", found[0].address(0)[1]))
        server.listen()
    close(outcomes)


def test_late_and_restarted_worker():
    chief, worker, other = clusters(3)
    with ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(join_cluster, chief, "same", 30)
        time.sleep(0.3)
        with socket.create_connection(chief.address(0)) as first:  # identifies itself and dies
            first.sendall(b'{"worker": 1, "of": 3, "digest": "same"}\n')
        time.sleep(0.3)
        joined = [pool.submit(join_cluster, each, "same", 30) for each in (other, worker)]
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
def test_ignores_strangers(said):
    chief, worker = clusters(2)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(join_cluster, chief, "same", 30)
        time.sleep(0.2)
        with socket.create_connection(chief.address(0)) as stranger:
            stranger.sendall(said)
            joined = pool.submit(join_cluster, worker, "same", 30)
            close([waiting, joined])


def test_names_absent_worker():
    found = clusters(3)
    outcomes = all_meet(found[:2], ["same"] * 2, 1)
    for outcome in outcomes:
        with pytest.raises(
            RuntimeError, match=r"worker 2 \(127\.0\.0\.1:\d+\) did not come within"
        ):
            outcome.result()


def test_names_absent_chief():
    _, worker = clusters(2)
    with pytest.raises(RuntimeError, match=r"worker 0 \(127.0.0.1:\d+\) did not answer within"):
        join_cluster(worker, "same", 0.5)


def test_refuses_other_options():
    since = time.monotonic()
    outcomes = all_meet(clusters(2), ["one", "other"], 60)
    for outcome in outcomes:
        with pytest.raises(RuntimeError, match="was started with other options"):
            outcome.result()
    assert time.monotonic() - since < 30


def test_refuses_duplicate_worker():
    found = clusters(3)
    outcomes = all_meet([found[0], found[1], found[1]], ["same"] * 3, 30)
    with pytest.raises(RuntimeError, match=r"worker 1 at .* was started"):
        outcomes[0].result()


def test_names_taken_port():
    chief, _ = clusters(2)
    with socket.socket() as other:
        other.bind(("", chief.address(0)[1]))
        other.listen()
        with pytest.raises(RuntimeError, match="cannot listen on port"):
            join_cluster(chief, "same", 5)


def test_leaves_no_thread():
    before = threading.active_count()
    close(all_meet(clusters(2), ["same"] * 2, 30))
    assert threading.active_count() == before
