"""Connects this process to the cluster; imports no TensorFlow, so that it can be entered early."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from engine.distributed import cluster_config as clusters
from engine.distributed.cluster_config import ClusterConfig
from engine.distributed.liveness import LivenessMonitor
from engine.distributed.options import DeviceOptions
from engine.distributed.rendezvous import join_cluster


class Cluster:
    """Connects the workers: entering waits until all have joined, leaving until all have finished.

    A worker that leaves with an error sends its message to the others, and does not wait. When a
    worker is lost, all others end with a one-line error that names it. Unless the strategy is
    multi_worker, entering and leaving do nothing.

    Args:
      options: device options; only `--strategy=multi_worker` uses a cluster.
      environment: environment variables of the process, which describe the cluster.
      digest: digest of the version and of the options that all workers must share.
    """

    def __init__(
        self, options: DeviceOptions, environment: Mapping[str, str], digest: str = ""
    ) -> None:
        self.cluster: ClusterConfig | None = None
        self.peers: LivenessMonitor | None = None
        self._digest, self._timeout = digest, options.cluster_timeout
        if options.strategy == "multi_worker":
            self.cluster = clusters.read(options.cluster, environment)

    def __enter__(self) -> Cluster:
        if self.cluster is not None:
            connections = join_cluster(self.cluster, self._digest, self._timeout)
            self.peers = LivenessMonitor(self.cluster, connections)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.peers is None:
            return
        if error is None:
            self.peers.leave()
        elif isinstance(error, RuntimeError) and (lost := self._lost()):
            raise RuntimeError(lost) from error
        else:
            self.peers.fail(" ".join(str(error).split()) or type(error).__name__)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief, which writes the run directory."""
        return self.cluster is None or self.cluster.is_chief

    def _lost(self) -> str | None:
        """Returns the reason why a worker was lost, or None if no worker was lost.

        Waits up to 3 s, because TensorFlow may detect the loss before the liveness monitor does.
        """
        assert self.peers is not None
        deadline = time.monotonic() + 3
        while self.peers.lost is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.peers.lost
