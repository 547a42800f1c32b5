"""The workers that train together, from before TensorFlow is imported to the end."""

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
    """Connects the workers: entering waits until all have joined, leaving until all are done.

    A worker that fails sends the reason to the others. The loss of a worker ends all of them, with
    one line that names it. With a single worker, entering and leaving do nothing.

    Args:
      options: options of the devices; `--strategy=multi_worker` means that there are other workers.
      environment: environment variables of the process, which describe the cluster.
      digest: digest of what all workers must share: the version and the options.
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
        """Returns why a worker was lost, or None if none was.

        Waits up to 3 s, because TensorFlow may notice the loss before the liveness monitor does.
        """
        assert self.peers is not None
        deadline = time.monotonic() + 3
        while self.peers.lost is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.peers.lost
