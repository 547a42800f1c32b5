"""Connects this process to the cluster; imports no TensorFlow, so that it can be entered early."""

from __future__ import annotations

import time
from collections.abc import Mapping

from engine.distributed import cluster_config
from engine.distributed.cluster_config import ClusterConfig
from engine.distributed.liveness import LivenessMonitor
from engine.distributed.options import DeviceOptions
from engine.distributed.rendezvous import join_cluster


class Cluster:
    """Connects the workers: entering waits until all have joined, leaving until all have finished.

    A worker that leaves with an error sends its message to the others, and does not wait. When a
    worker is lost, all others end with a one-line error that names it. Unless the strategy is
    multi_worker, entering and leaving do nothing. The digest, of the version and the options, must
    be the same on all workers.
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
        """Whether this process is the chief, which writes the run directory."""
        return self.cluster is None or self.cluster.is_chief
